"""Stage: supervised fine-tuning. Reads a base model and prompts with references; writes π₀, the frozen base policy, as
an ordinary Hugging Face folder (safetensors, config, tokenizer, README.md).

    tilt run goal=[sft]

LoRA on all linear layers, loss on the response and its EOS only, then merged: what follows needs no peft.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from stages import records
from stages.errors import BadInput
from stages.language_model import encode_prompt, load_model, load_tokenizer
from stages.learn.trainer import Module, fit, length_batches, quiet, seeded
from stages.records import Prompt
from stages.runtime import Runtime


class Exchange(NamedTuple):
    """A prompt and its known good response, as tokens."""

    prompt: list[int]
    """Read, not predicted."""
    response: list[int]
    """Predicted; its EOS included."""


def encode_references(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], max_tokens: int) -> list[Exchange]:
    """Prompt and reference + EOS as tokens. What exceeds `max_tokens` is cut at the end, its EOS with it."""
    encoded = []
    for prompt in prompts:
        start = encode_prompt(tokenizer, prompt)
        response = list(tokenizer(prompt.reference, add_special_tokens=False)["input_ids"])
        response = [*response, int(tokenizer.eos_token_id)]  # type: ignore[arg-type]
        encoded.append(Exchange(start, response[: max(0, max_tokens - len(start))]))
    return [sequence for sequence in encoded if sequence.prompt and sequence.response]


def response_nats(model: PreTrainedModel, batch: Sequence[Exchange]) -> tuple[torch.Tensor, int]:
    """−log p of all response tokens of a batch, summed, in nats, and their number.

    Padding stands on the right behind a causal mask and is left out of the sum, so it cannot change the figure.
    """
    longest = max(len(s.prompt) + len(s.response) for s in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)  # (b, S)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for row, (prompt, response) in enumerate(batch):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        labels[row, len(prompt) : end] = torch.tensor(response)
        mask[row, :end] = 1
    device = model.device
    trunk, head = cast(Any, model.base_model), cast(Any, model.get_output_embeddings())
    states = trunk(
        input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
    ).last_hidden_state  # (b, S, D)
    targets = labels[:, 1:].to(device)  # (b, S − 1)
    predicted = targets != -100
    logits = head(states[:, :-1][predicted])  # (N, V): the prompt costs no vocabulary
    nats = F.cross_entropy(logits.float(), targets[predicted], reduction="sum")
    return nats, int(predicted.sum())


class _FineTuning(Module):
    def __init__(self, model: PreTrainedModel, sequences: Sequence[Exchange], learning_rate: float) -> None:
        super().__init__(learning_rate=learning_rate)
        self.model = model
        self.sequences = sequences

    def loss(self, indices: list[int]) -> torch.Tensor:
        nats, tokens = response_nats(self.model, [self.sequences[i] for i in indices])
        return nats / tokens


@dataclass
class FineTune:
    """LoRA fine-tuning on prompt + reference + EOS."""

    model: Path
    """Folder of the base model."""
    prompts: Path
    """Payload of stage `prompts`."""
    part: str = "sft"
    """The prompts whose references are learnt."""
    heldout: str = "sft_heldout"
    """The prompts whose references only measure."""
    lora_rank: int = 16
    lora_alpha: int = 16
    top_layers: int = 0
    """How many layers, counted from the top, get an adapter; those below are not even differentiated. 0: all."""
    learning_rate: float = 1e-3
    batch_size: int = 8
    """Sequences in one optimiser step."""
    epochs: float = 1.0
    """Passes over the training sequences; a fraction takes that share of the batches."""
    max_tokens: int = 64
    """Prompt and response together; longer ones are cut."""
    dtype: str = "bfloat16"
    """Of the frozen weights and of the saved model; the adapter is trained in float32."""
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput where a part has no prompt with a reference, or the model folder is incomplete."""
        train, heldout = self._read()
        tokenizer = load_tokenizer(Path(self.model))
        model = load_model(Path(self.model), dtype=self.dtype, device=self.runtime.device)
        before = self._heldout_nats(model, encode_references(tokenizer, heldout, self.max_tokens))
        sequences = encode_references(tokenizer, train, self.max_tokens)
        if not sequences:
            raise BadInput("max_tokens", f"{self.max_tokens} tokens leave no room for any response")
        with seeded(self.seed):
            with quiet():
                adapted = self._adapted(model)
            batches = length_batches([len(p) + len(r) for p, r in sequences], self.batch_size, self.epochs, self.seed)
            fit(_FineTuning(model, sequences, self.learning_rate), batches, self.runtime, "nats a token")
        adapted.to(torch.float32)  # small changes would be lost when they are added to bfloat16 weights one by one
        merged = adapted.merge_and_unload().to(getattr(torch, self.dtype)).requires_grad_(False)
        after = self._heldout_nats(merged, encode_references(tokenizer, heldout, self.max_tokens))
        metrics = {
            "heldout_nats_before": before,
            "heldout_nats_after": after,
            "sequences": float(len(sequences)),
            "steps": float(len(batches)),
            "response_tokens": float(sum(len(s.response) for s in sequences)),
        }
        merged.save_pretrained(out)
        tokenizer.save_pretrained(out)
        (out / "README.md").write_text(self._card(metrics), encoding="utf-8")
        self.runtime.metrics(metrics)

    def _adapted(self, model: PreTrainedModel) -> Any:
        """The model with LoRA on the linear modules of its top layers."""
        layers = int(model.config.num_hidden_layers)
        if not 0 <= self.top_layers <= layers:
            raise BadInput("top_layers", f"{self.top_layers} is not 0 (all) to {layers}, the layers of {self.model}")
        targets: str | list[str] = "all-linear"
        if self.top_layers:
            targets = [
                f"{name}.{index}.{inner}"
                for name, module in model.named_modules()
                if isinstance(module, nn.ModuleList) and len(module) == layers
                for index in range(layers - self.top_layers, layers)
                for inner, part in module[index].named_modules()
                if isinstance(part, nn.Linear | Conv1D)
            ]
        settings = LoraConfig(r=self.lora_rank, lora_alpha=self.lora_alpha, lora_dropout=0.0, target_modules=targets)
        return get_peft_model(model, settings)

    def _read(self) -> tuple[list[Prompt], list[Prompt]]:
        """Training and held-out prompts with a reference."""
        everything = records.read(Path(self.prompts) / "prompts.parquet", Prompt)
        parts = []
        for name, part in (("part", self.part), ("heldout", self.heldout)):
            chosen = [prompt for prompt in everything if prompt.part == part and prompt.reference]
            if not chosen:
                there = ", ".join(sorted({p.part for p in everything if p.reference})) or "none"
                raise BadInput(name, f"no prompt of part {part!r} has a reference; the parts that have: {there}")
            parts.append(chosen)
        return parts[0], parts[1]

    @torch.inference_mode()
    def _heldout_nats(self, model: PreTrainedModel, sequences: list[Exchange]) -> float:
        """Nats per response token on held-out sequences."""
        ordered = sorted(sequences, key=lambda s: len(s.prompt) + len(s.response))
        nats, tokens = 0.0, 0
        for start in range(0, len(ordered), self.runtime.rows):
            summed, counted = response_nats(model, ordered[start : start + self.runtime.rows])
            nats, tokens = nats + float(summed), tokens + counted
            self.runtime.progress(0, 1, "held-out loss")
        return nats / max(1, tokens)

    def _card(self, metrics: dict[str, float]) -> str:
        hidden = ("runtime", "model", "prompts")  # places on this machine, not properties of the model
        lines = [f"- {f.name}: {getattr(self, f.name)}" for f in fields(self) if f.name not in hidden]
        measured = [f"- {name}: {value:.4g}" for name, value in metrics.items()]
        return "\n".join(
            [
                "# Base policy π₀",
                "",
                f"A causal language model (`{Path(self.model).name}`), fine-tuned with LoRA on prompts of part "
                f"`{self.part}` and their references, then merged. Loss on response tokens and EOS.",
                "",
                "## Configuration",
                "",
                *lines,
                "",
                "## Measured on held-out references",
                "",
                *measured,
                "",
            ]
        )
