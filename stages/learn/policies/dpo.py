"""Stage: Direct Preference Optimization. Reads labelled rollouts, prompts and π₀; writes the tuned policy as an
ordinary Hugging Face folder (safetensors, config, tokenizer, README.md).

    tilt run goal=[dpo] method=dpo

Pairs are made of the same rollouts and rewards that values learn from (arXiv 2305.18290). Log-probabilities under π₀
are computed once, before there is any adapter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from stages.engine.head import require_known_head
from stages.engine.language_model import load_model, load_tokenizer
from stages.engine.prompts import encode_prompt
from stages.errors import BadInput
from stages.learn.cards import rollouts_table
from stages.learn.flops import Cost
from stages.learn.labels import read_labels, reward_columns, split_prompts, spread
from stages.learn.loop.batches import length_batches
from stages.learn.loop.trainer import Module, Trained, Trainer, fit, machines_of, seeded
from stages.learn.lora import adapted, merged
from stages.learn.policies.dpo_loss import ResponseLogprobs, dpo_loss, margins
from stages.learn.policies.pairs import Pair, make_pairs
from stages.learn.policies.saved import save_policy
from stages.learn.responses import Exchange, by_length, response_logprobs
from stages.runtime import Runtime
from stages.training_cost import rollouts_cost


def exchanges(pairs: Sequence[Pair]) -> list[Exchange]:
    """All chosen responses, then all rejected ones."""
    return [Exchange(p.prompt, p.chosen) for p in pairs] + [Exchange(p.prompt, p.rejected) for p in pairs]


def pair_logprobs(model: PreTrainedModel, pairs: Sequence[Pair]) -> torch.Tensor:
    """(2, P) log π of the chosen and the rejected responses, in one forward."""
    return response_logprobs(model, exchanges(pairs)).view(2, len(pairs))


@torch.inference_mode()
def reference_logprobs(model: PreTrainedModel, pairs: Sequence[Pair], rows: int, runtime: Runtime | None = None):
    """(2, P) log π₀ of the chosen and the rejected responses, on the CPU."""
    sequences = exchanges(pairs)
    found = torch.zeros(len(sequences))
    done = 0
    for batch in by_length(sequences, rows):
        found[batch] = response_logprobs(model, [sequences[i] for i in batch]).cpu()
        done += len(batch)
        if runtime is not None:
            runtime.progress(done, len(sequences), "reference log-probabilities")
    return found.view(2, len(pairs)).clone()


def pair_losses(
    model: PreTrainedModel,
    pairs: Sequence[Pair],
    reference: torch.Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    length_normalised: bool = False,
) -> torch.Tensor:
    """(P,) losses of pairs, given log π₀ of their responses, (2, P)."""
    chosen, rejected = both_sides(pairs, pair_logprobs(model, pairs), reference.to(model.device))
    return dpo_loss(chosen, rejected, beta, label_smoothing, length_normalised)


def both_sides(
    pairs: Sequence[Pair], tuned: torch.Tensor, reference: torch.Tensor
) -> tuple[ResponseLogprobs, ResponseLogprobs]:
    """The chosen and the rejected responses of pairs, given log π and log π₀ of both, (2, P) each."""
    sizes = [[len(p.chosen) for p in pairs], [len(p.rejected) for p in pairs]]
    lengths = torch.tensor(sizes, device=tuned.device)
    chosen, rejected = (ResponseLogprobs(tuned[i], reference[i], lengths[i]) for i in (0, 1))
    return chosen, rejected


class _Preferring(Module):
    def __init__(self, model: PreTrainedModel, pairs: Sequence[Pair], reference: torch.Tensor, stage: "Dpo") -> None:
        super().__init__(terms=[1.0] * len(pairs), learning_rate=stage.learning_rate)
        self.model = model
        self.pairs = pairs
        self.reference = reference  # (2, P), not a buffer: checkpoints need not hold it
        self.stage = stage

    def loss(self, indices: list[int]) -> torch.Tensor:
        return pair_losses(
            self.model,
            [self.pairs[i] for i in indices],
            self.reference[:, indices],
            beta=self.stage.beta,
            label_smoothing=self.stage.label_smoothing,
            length_normalised=self.stage.length_normalised,
        ).sum()


@dataclass
class Dpo:
    """LoRA fine-tuning of π₀ on preference pairs of its own rollouts."""

    labels: Path
    """Payload of stage `labels`."""
    prompts: Path
    """Payload of stage `prompts`."""
    base: Path
    """Folder of π₀: it drew the rollouts, training starts from it, and log-ratios are against it."""
    reward: str = "proxy"
    """The reward column that says which response is better."""
    beta: float = 0.1
    """Strength of the tie to π₀: smaller moves further away."""
    label_smoothing: float = 0.0
    """Probability that a preference is wrong, below ½."""
    length_normalised: bool = False
    """Divide each response's log-ratio by its tokens."""
    pairs: int = 4
    """At most so many pairs a prompt."""
    margin: float = 0.5
    """Least difference in reward within a pair, in standard deviations of the reward."""
    lora_rank: int = 16
    lora_alpha: int = 16
    top_layers: int = 10
    """How many layers, counted from the top, get an adapter; 0: all."""
    learning_rate: float = 2e-3
    batch_size: int = 8
    """Pairs in one optimiser step."""
    epochs: float = 1.0
    heldout: float = 0.1
    """Share of the prompts whose pairs only measure; 0: none."""
    allow_truncated: bool = False
    """Learn even where every rollout was cut at the token limit."""
    dtype: str = "bfloat16"
    """Of the frozen weights and of the saved model; the adapter is trained in float32."""
    seed: int = 0
    trainer: Trainer = field(default_factory=Trainer)
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput for settings that cannot be used and labels that hold nothing to prefer."""
        self._check()
        tokenizer = load_tokenizer(Path(self.base), "base")
        train, heldout, sd, data = self._pairs(tokenizer)
        pairs = train + heldout
        lm = load_model(Path(self.base), dtype=self.dtype, device=self.runtime.device, field="base")
        require_known_head(lm, "base")
        untouched = Cost(lm)
        reference = reference_logprobs(lm, pairs, self.runtime.rows, self.runtime)  # (2, P)
        with seeded(self.seed):
            adapters = adapted(lm, rank=self.lora_rank, alpha=self.lora_alpha, top_layers=self.top_layers)
            lengths = [len(p.prompt) + max(len(p.chosen), len(p.rejected)) for p in train]
            batches = length_batches(lengths, self.batch_size, self.epochs, self.seed)
            training = _Preferring(lm, pairs, reference, self)
            held = range(len(train), len(pairs))
            trained = fit(training, batches, self.runtime, "DPO loss", trainer=self.trainer, heldout=held)
        if self.runtime.rank:
            return
        metrics = {"pairs": float(len(train)), "heldout_pairs": float(len(heldout)), "margin": sd * self.margin}
        metrics |= self._cost(Cost(lm), untouched, pairs, trained) | {"steps": float(trained.steps)}
        metrics |= rollouts_cost(self.labels)
        tuned = merged(adapters, self.dtype)
        if heldout:
            metrics |= self._measured(tuned, heldout, reference[:, len(train) :])
        about = (
            f"A causal language model (`{Path(self.base).name}`), tuned by Direct Preference Optimization (arXiv "
            f"2305.18290) with LoRA on {len(train)} pairs of its own responses, ranked by reward `{self.reward}`, then "
            "merged."
        )
        save_policy(out, tuned, tokenizer, title="DPO policy", about=about, data=data, stage=self, metrics=metrics)
        self.runtime.metrics(metrics)

    def _check(self) -> None:
        if not (np.isfinite(self.beta) and self.beta > 0):
            raise BadInput("beta", f"{self.beta} is not a positive strength")
        if not 0 <= self.label_smoothing < 0.5:
            raise BadInput("label_smoothing", f"{self.label_smoothing} is not a probability below ½")
        if self.pairs < 1:
            raise BadInput("pairs", f"{self.pairs} is not a positive number of pairs")
        if self.margin < 0:
            raise BadInput("margin", f"{self.margin} is negative; 0 takes every pair of unequal rewards")
        machines_of(self.runtime, self.trainer)

    def _pairs(self, tokenizer) -> tuple[list[Pair], list[Pair], float, list[str]]:
        """Training and held-out pairs, the reward's deviation, and what the model card says of the data."""
        rollouts, known = read_labels(self.labels, self.prompts, self.allow_truncated)
        column = reward_columns(rollouts, [self.reward], "reward")
        _, sd = spread(column, [self.reward])
        starts = {name: encode_prompt(tokenizer, known[name]) for name in {r.prompt_id for r in rollouts}}
        made = make_pairs(rollouts, column[:, 0].tolist(), starts, most=self.pairs, margin=self.margin, sd=float(sd[0]))
        names = [name for name, _ in made]
        held = split_prompts(names, self.heldout, self.seed) if len(set(names)) > 1 else set()
        train = [pair for name, pair in made if name not in held]
        data = [rollouts_table(self.labels, rollouts, len(held))]
        return train, [pair for name, pair in made if name in held], float(sd[0]), data

    def _cost(self, cost: Cost, untouched: Cost, pairs: list[Pair], trained: Trained) -> dict[str, float]:
        def sizes(chosen: list[Pair]) -> tuple[list[int], int]:
            both = exchanges(chosen)
            return [len(e.prompt) + len(e.response) for e in both], sum(len(e.response) for e in both)

        lengths, predicted = sizes([pairs[i] for i in trained.examples])
        return {
            "train_tokens": float(sum(lengths)),
            "train_flops": cost.step(lengths, predicted) + untouched.forward(*sizes(pairs)),
            "tokens_per_second": sum(lengths) / trained.seconds,
        }

    @torch.inference_mode()
    def _measured(self, lm: PreTrainedModel, pairs: list[Pair], reference: torch.Tensor) -> dict[str, float]:
        """On pairs of other prompts: the loss, and how often the better response has the higher implicit reward, which
        is a token's mean where the loss compares means."""
        tuned = reference_logprobs(lm, pairs, self.runtime.rows, self.runtime)  # (2, P)
        chosen, rejected = both_sides(pairs, tuned, reference)
        losses = dpo_loss(chosen, rejected, self.beta, self.label_smoothing, self.length_normalised)
        above = margins(chosen, rejected, self.beta, self.length_normalised) > 0  # (P,)
        ratios = tuned - reference
        return {
            "heldout_loss": float(losses.mean()),
            "heldout_accuracy": float(above.float().mean()),
            "heldout_chosen_log_ratio": float(ratios[0].mean()),
            "heldout_rejected_log_ratio": float(ratios[1].mean()),
        }
