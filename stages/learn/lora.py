"""Low-rank adapters on a language model, merged at the end; and the folder that a tuned policy is saved as."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from stages.errors import BadInput
from stages.learn.cards import model_card
from stages.learn.loop.watch import quiet
from stages.training_cost import write_cost


def adapted(model: Any, *, rank: int, alpha: int, top_layers: int, layers: int | None = None) -> Any:
    """The model with LoRA on the linear modules of its `top_layers` (0: all); nothing else is trained.

    The adapters live inside `model` itself, which can be used as before. `layers`: only the first so many are counted
    and adapted (default: all). Raises BadInput for layers it has not.
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
    """An ordinary model with the adapters added to its weights, in `dtype`, without gradients."""
    adapters.to(torch.float32)  # small changes would be lost when they are added to bfloat16 weights one by one
    return adapters.merge_and_unload().to(getattr(torch, dtype)).requires_grad_(False)


def save_policy(
    out: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str,
    about: str,
    data: Sequence[str],
    stage: Any,
    metrics: Mapping[str, float],
) -> None:
    """A Hugging Face folder that `from_pretrained` loads by itself: safetensors, config, tokenizer, card, cost."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "README.md").write_text(model_card(title, about, data, stage, metrics), encoding="utf-8")
    write_cost(out, title, metrics)
