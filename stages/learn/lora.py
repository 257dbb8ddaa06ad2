"""Low-rank adapters (LoRA, arXiv 2106.09685) on a language model: put on before a training, merged after it."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stages.errors import BadInput
from stages.learn.loop.watch import quiet


def adapted(model: Any, *, rank: int, alpha: int, top_layers: int, layers: int | None = None) -> Any:
    """The model with LoRA on the linear modules of its `top_layers` (0: all); nothing else is trained.

    `model` itself is changed: its linear modules hold the adapters from now on, and it can be used as before. `layers`:
    only the first so many layers count, and `top_layers` are the topmost of these (default: all). Raises BadInput where
    the model has fewer layers than `top_layers`.
    """
    whole = layers is None
    layers = int(model.config.num_hidden_layers) if layers is None else layers
    if not 0 <= top_layers <= layers:
        raise BadInput("top_layers", f"{top_layers} is not 0 (all) to {layers}, the model's layers")
    targets: str | list[str] = "all-linear"
    if top_layers or not whole:
        first = layers - top_layers if top_layers else 0
        targets = [
            f"{name}.{index}.{inner}"
            for name, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) >= layers
            for index in range(first, layers)
            for inner, part in module[index].named_modules()
            if isinstance(part, nn.Linear | Conv1D)
        ]
    settings = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets)
    with quiet():
        return get_peft_model(model, settings)


def merged(adapters: Any, dtype: str) -> PreTrainedModel:
    """The ordinary model again, the adapters added to its weights, in `dtype`, without gradients."""
    adapters.to(torch.float32)  # small changes would be lost when they are added to bfloat16 weights one by one
    return adapters.merge_and_unload().to(getattr(torch, dtype)).requires_grad_(False)
