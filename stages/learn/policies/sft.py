"""Stage: supervised fine-tuning. Reads a base model and prompts with references; writes π₀, which nothing changes
afterwards, as an ordinary Hugging Face folder (safetensors, config, tokenizer, README.md).

    tilt run goal=[sft]

LoRA on linear layers, with the loss on the response and its EOS alone; then the adapters are merged, so that what
follows needs no peft.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages import records
from stages.engine.head import require_known_head
from stages.engine.language_model import load_model, load_tokenizer
from stages.engine.prompts import encode_prompt
from stages.errors import BadInput
from stages.learn.cards import table
from stages.learn.flops import Cost
from stages.learn.loop.batches import length_batches
from stages.learn.loop.trainer import Module, Trainer, fit, machines_of, seeded
from stages.learn.lora import adapted, merged
from stages.learn.policies.saved import save_policy
from stages.learn.responses import Exchange, by_length, response_nats
from stages.records import Prompt
from stages.runtime import Runtime
from stages.training_cost import inherited


def encode_references(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], max_tokens: int) -> list[Exchange]:
    """Prompt and reference + EOS as tokens. What exceeds `max_tokens` is cut at the end, its EOS with it."""
    encoded = []
    for prompt in prompts:
        start = encode_prompt(tokenizer, prompt)
        response = list(tokenizer(prompt.reference, add_special_tokens=False)["input_ids"])
        response = [*response, int(tokenizer.eos_token_id)]  # type: ignore[arg-type]
        encoded.append(Exchange(start, response[: max(0, max_tokens - len(start))]))
    return [sequence for sequence in encoded if sequence.prompt and sequence.response]


class _FineTuning(Module):
    def __init__(self, model: PreTrainedModel, sequences: Sequence[Exchange], learning_rate: float) -> None:
        super().__init__(terms=[len(s.response) for s in sequences], learning_rate=learning_rate)
        self.model = model
        self.sequences = sequences

    def loss(self, indices: list[int]) -> torch.Tensor:
        return response_nats(self.model, [self.sequences[i] for i in indices])[0]


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
    top_layers: int = 10
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
    trainer: Trainer = field(default_factory=Trainer)
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput where a part has no prompt with a reference, or the model folder is incomplete."""
        machines_of(self.runtime, self.trainer)
        train, heldout = self._read()
        tokenizer = load_tokenizer(Path(self.model))
        lm = load_model(Path(self.model), dtype=self.dtype, device=self.runtime.device)
        require_known_head(lm, "model")
        sequences = encode_references(tokenizer, train, self.max_tokens)
        measured = encode_references(tokenizer, heldout, self.max_tokens)
        if not sequences:
            raise BadInput("max_tokens", f"{self.max_tokens} tokens leave no room for any response")
        before = self._heldout_nats(lm, measured) if self.runtime.rank == 0 else 0.0
        with seeded(self.seed):
            adapters = adapted(lm, rank=self.lora_rank, alpha=self.lora_alpha, top_layers=self.top_layers)
            lengths = [len(p) + len(r) for p, r in sequences]
            batches = length_batches(lengths, self.batch_size, self.epochs, self.seed)
            training = _FineTuning(lm, sequences + measured, self.learning_rate)
            held = range(len(sequences), len(sequences) + len(measured))
            trained = fit(training, batches, self.runtime, "nats a token", trainer=self.trainer, heldout=held)
        if self.runtime.rank:
            return
        cost = Cost(lm)
        tuned = merged(adapters, self.dtype)
        metrics = {
            "heldout_nats_before": before,
            "heldout_nats_after": self._heldout_nats(tuned, measured),
            "sequences": float(len(sequences)),
            "steps": float(trained.steps),
            "response_tokens": float(sum(len(s.response) for s in sequences)),
            "train_tokens": float(sum(lengths[i] for i in trained.examples)),
            "train_flops": cost.step(
                [lengths[i] for i in trained.examples], sum(len(sequences[i].response) for i in trained.examples)
            ),
        } | inherited(self.prompts)
        about = (
            f"A causal language model (`{Path(self.model).name}`), fine-tuned with LoRA on prompts of part "
            f"`{self.part}` and their references, then merged. Loss on response tokens and EOS."
        )
        rows = f"{len(sequences)} prompts of part `{self.part}` with references; {len(measured)} of `{self.heldout}`"
        data = [table(Path(self.prompts) / "prompts.parquet", f"{rows} only measure")]
        title = "Fine-tuned policy"
        save_policy(out, tuned, tokenizer, title=title, about=about, data=data, stage=self, metrics=metrics)
        self.runtime.metrics(metrics)

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
    def _heldout_nats(self, lm: PreTrainedModel, sequences: list[Exchange]) -> float:
        """Nats per response token on held-out sequences."""
        nats, tokens = 0.0, 0
        for batch in by_length(sequences, self.runtime.rows):
            summed, counted = response_nats(lm, [sequences[i] for i in batch])
            nats, tokens = nats + float(summed), tokens + counted
            self.runtime.progress(0, 1, "held-out loss")
        return nats / max(1, tokens)
