"""A value head over the vocabulary as a guide (arXiv 2409.17819): one forward gives every next token's value."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from stages.decode.values.settings import (
    require_candidates,
    require_one_strength,
    require_strength,
    require_transform,
)
from stages.decode.values.vocab import VocabValues, open_vocab_values
from stages.engine.causal_lm import CausalLM
from stages.engine.distribution import Distribution
from stages.engine.lanes import Lanes
from stages.engine.sampling import Sampling
from stages.engine.terms import Terms
from stages.engine.tilt import value_tilt
from stages.errors import BadInput


@dataclass
class VocabValue:
    """π(a|s) ∝ π₀(a|s)·exp(β·Q(s, a))."""

    folder: Path
    """A value model's folder (`stages/learn/values/vocab_head.py`)."""
    beta: float = 4.0
    k: int | None = None
    """Candidates: the tilt is for the k likeliest tokens alone, centred by their mean; null: for all."""
    outside: str = "mean"
    """With k, what other tokens get: `mean` (untouched) or `drop` (nothing)."""
    transform: str = field(default="identity", kw_only=True)
    model: CausalLM | None = field(default=None, kw_only=True)
    """The model whose states the head reads; null: the policy's, or the folder `model/` beside the head."""

    def check(self, field: str = "guide") -> None:
        require_strength(require_one_strength(self.beta, f"{field}.beta"), f"{field}.beta")
        if self.k is not None and self.k < 1:
            raise BadInput(f"{field}.k", f"{self.k} is not a positive number of candidates; null takes all tokens")
        if self.outside not in ("mean", "drop"):
            raise BadInput(f"{field}.outside", f"{self.outside!r} is not one of mean, drop")
        require_transform(self.transform, field)

    def scaled(self, weight: float) -> "VocabValue":
        return dataclasses.replace(self, beta=weight * self.beta)

    def open(self, lanes: Lanes, sampling: Sampling, field: str = "guide") -> Terms:
        """Raises BadInput for k > V, a head of another trunk or vocabulary."""
        self.check(field)
        require_candidates(self.k or 1, lanes.policy.lm.vocabulary, field)
        values = open_vocab_values(lanes, self.folder, self.model, self.transform, field, eager=True)
        return Terms([VocabTilt(values, self.beta, self.k, self.outside)])


class VocabTilt:
    """β·(Q(s, ·) − c): a dense term."""

    def __init__(self, values: VocabValues, beta: float, k: int | None, outside: str) -> None:
        self.values, self.k, self.outside = values, k, outside
        self.name, self.flops, self.betas = f"values of {values.name}", values.flops, (float(beta),)

    def tilt(self, base: Distribution, sampling: Sampling, betas: Tensor) -> Tensor:
        """(R, V) float32; with k: c is the candidates' mean, other tokens get 0, or −inf for `drop`."""
        values = self.values.values(self.values.lane.states).to(base.weights.device)  # (R, V)
        if self.k is None:
            return values * betas.float()
        ids = base.likeliest(self.k)  # (R, C)
        supported = base.weights.gather(1, ids) > 0
        tilts = value_tilt(values.gather(1, ids), supported, betas[:, 0].float(), self.outside)
        others = -torch.inf if self.outside == "drop" else 0.0
        return torch.full_like(values, others).scatter_(1, ids, tilts)
