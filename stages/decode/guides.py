"""Token guides: what tilts the base policy's next-token distribution.

A guide is configuration; `open` loads what it needs and gives the terms (`steering.py`) that the engine steps.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from stages.decode.values import (
    open_values,
    open_vocab_values,
    require_candidates,
    require_one_strength,
    require_outside,
    require_strength,
    require_transform,
)
from stages.engine.lanes import Lane, Lanes
from stages.engine.policy import CausalLM, Policy
from stages.engine.sampling import Base, Sampling
from stages.engine.steering import Candidates, Terms
from stages.errors import BadInput

COMPATIBLE = ("", "official")


class TokenGuide(Protocol):
    """Configuration of a guide."""

    def check(self, field: str = "guide") -> None:
        """Raises BadInput for values that no policy could use."""
        ...

    def open(self, policy: Policy, sampling: Sampling, field: str = "guide", lanes: Lanes | None = None) -> Terms:
        """Loads what the guide needs into `lanes` (new ones around the policy where there are none). Raises BadInput
        for what does not fit this policy."""
        ...


@dataclass
class ScalarValue:
    """Value Augmented Sampling (arXiv 2405.06639).

    π(a|s) ∝ π₀(a|s)·exp(Σᵢ βᵢ·(Vᵢ(s⊕a) − c)) for the k likeliest tokens; `outside` says what c is and what the others
    get (`tilt.OUTSIDE`). The candidates go through the value's trunk in one forward, together with the one token that
    the base would draw outside them. Where the trunk is the policy's own, frozen, whichever token is chosen has its
    next logits there: one forward a token. Another model steps beside it. EOS is a candidate like any other.
    """

    folder: Path
    """A value model's folder (`stages/learn/values/scalar_head.py`)."""
    beta: float | list[float] = 1.0
    """Strength: multiplies the z-scored value after temperature; 0 = base. A list: one for each reward."""
    k: int = 10
    """Candidates."""
    outside: str = "mean"
    reward: str | list[str] | None = None
    """Which of the value model's rewards; may be left out where it has one, or β is a list for all of them."""
    force_eos_candidate: bool = field(default=False, kw_only=True)
    """Put EOS in the last candidate's place where it is not among them."""
    transform: str = field(default="identity", kw_only=True)
    """`identity`, or `log_sigmoid` for FUDGE's classifier logits (arXiv 2104.05218)."""
    model: CausalLM | None = field(default=None, kw_only=True)
    """The model whose states the head reads; null: the policy's, or the folder `model/` beside the head."""
    compat: str = field(default="", kw_only=True)
    """`official` tilts before temperature, as VAS's public code does: β acts as β ÷ temperature. (Its stale and doubled
    caches, DESIGN §8.1, are errors and not offered.)"""

    def check(self, field: str = "guide") -> None:
        require_strength(self.beta, f"{field}.beta")
        if self.k < 1:
            raise BadInput(f"{field}.k", f"{self.k} is not a positive number of candidates")
        if self.force_eos_candidate and self.k < 2:
            raise BadInput(f"{field}.k", "force_eos_candidate takes one candidate's place; choose k of at least 2")
        require_outside(self.outside, field)
        require_transform(self.transform, field)
        if self.compat not in COMPATIBLE:
            raise BadInput(f"{field}.compat", f"{self.compat!r} is not 'official' or empty")

    def open(self, policy: Policy, sampling: Sampling, field: str = "guide", lanes: Lanes | None = None) -> Terms:
        """Raises BadInput for k > V, rewards and strengths that do not match, a head of another trunk."""
        self.check(field)
        require_candidates(self.k, policy.vocabulary, field)
        lanes = lanes or Lanes(policy)
        folder = Path(self.folder)
        values = open_values(lanes, folder, self.model, self.reward, self.beta, self.transform, field, eager=True)
        official = self.compat == "official"
        return Terms(
            lanes, [], [values], Candidates(self.k, self.outside, self.force_eos_candidate, before_temperature=official)
        )


@dataclass
class VocabValue:
    """A vocabulary-wide value head: π(a|s) ∝ π₀(a|s)·exp(β·Q(s, a)), one forward for all tokens (arXiv 2409.17819)."""

    folder: Path
    """A value model's folder (`stages/learn/values/vocab_head.py`)."""
    beta: float = 1.0
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

    def open(self, policy: Policy, sampling: Sampling, field: str = "guide", lanes: Lanes | None = None) -> Terms:
        """Raises BadInput for k > V, a head of another trunk or vocabulary."""
        self.check(field)
        require_candidates(self.k or 1, policy.vocabulary, field)
        lanes = lanes or Lanes(policy)
        values = open_vocab_values(
            lanes, self.folder, self.model, self.beta, self.transform, self.k, self.outside, field, eager=True
        )
        return Terms(lanes, [values])


class LogRatio:
    """w·(z_tuned − z_untuned) ÷ temperature: the mixture of logits before temperature, as a tilt of every token."""

    flops = 0.0
    """Both logits are the lanes'."""

    def __init__(self, lanes: Lanes, tuned: Lane, untuned: Lane, weight: float) -> None:
        self.lanes, self.tuned, self.untuned, self.weight = lanes, tuned, untuned, weight
        self.name = f"logits of {tuned.policy.folder} or {untuned.policy.folder}"

    def tilt(self, base: Base, sampling: Sampling) -> Tensor:
        """(R, V); a token that either of the two rules out (a padded vocabulary's) is never drawn. A weight of 0 reads
        nothing: it is the base, whatever the two say."""
        if not self.weight:
            return torch.zeros_like(base.weights)
        assert self.tuned.logits is not None
        assert self.untuned.logits is not None
        above, below = self.lanes.fit(self.tuned.logits), self.lanes.fit(self.untuned.logits)  # (R, V)
        ratio = (above - below).mul_(self.weight / sampling.temperature)
        # −∞ − (−∞) is NaN and w·∞ may be +∞, which no model said. (A sum is −∞ where one of two is, and neither is NaN:
        # NaN of a model stays and is named.)
        return ratio.masked_fill_((above + below).isneginf(), -torch.inf)


@dataclass
class Implicit:
    """Emulated fine-tuning (arXiv 2310.12962), IVG's implicit value: z = z_base + w·(z_tuned − z_untuned).

    Mixed before temperature; truncation is chosen from the base before it, so that KL stays finite and exact. Each
    model has its own chat template and cache; all share one vocabulary. Several tuned models: a `Sum` of these.
    """

    tuned: CausalLM
    untuned: CausalLM | None = None
    """Null: the policy itself, whose logits are there already."""
    weight: float = 1.0
    """w; 0 = base."""

    def check(self, field: str = "guide") -> None:
        if not math.isfinite(self.weight):
            raise BadInput(f"{field}.weight", f"{self.weight} is not a finite number; 0 is the base policy")

    def open(self, policy: Policy, sampling: Sampling, field: str = "guide", lanes: Lanes | None = None) -> Terms:
        """Raises BadInput where a model has another vocabulary than the policy: both are named."""
        self.check(field)
        lanes = lanes or Lanes(policy)
        tuned = lanes.join(self.tuned, f"{field}.tuned", eager=True)
        untuned = lanes.join(self.untuned, f"{field}.untuned", eager=True)
        tuned.wants_logits = untuned.wants_logits = True
        return Terms(lanes, [LogRatio(lanes, tuned, untuned, self.weight)])


@dataclass
class Sum:
    """Several guides at once, each times its weight. Guides with candidates must ask for the same ones."""

    guides: list[Any]
    weights: list[float] | None = None
    """One each, multiplying the guide's own strength; null: all 1."""

    def check(self, field: str = "guide") -> None:
        if not self.guides:
            raise BadInput(f"{field}.guides", "no guide is named; null is the base policy")
        if self.weights is not None and len(self.weights) != len(self.guides):
            raise BadInput(
                f"{field}.weights", f"{len(self.weights)} weights for {len(self.guides)} guides; give one each"
            )
        for index, guide in enumerate(self._weighted()):
            guide.check(f"{field}.guides.{index}")

    def _weighted(self) -> list[Any]:
        weights: Sequence[float] = self.weights or [1.0] * len(self.guides)
        return [weighted(guide, weight) for guide, weight in zip(self.guides, weights, strict=True)]

    def open(self, policy: Policy, sampling: Sampling, field: str = "guide", lanes: Lanes | None = None) -> Terms:
        """Raises BadInput for what a guide refuses, and where two ask for different candidates."""
        self.check(field)
        terms = Terms(lanes or Lanes(policy))
        for index, guide in enumerate(self._weighted()):
            opened = guide.open(policy, sampling, f"{field}.guides.{index}", terms.lanes)
            terms.dense += opened.dense
            terms.scalar += opened.scalar
            terms.candidates = terms.candidates or opened.candidates
            if opened.candidates not in (None, terms.candidates):
                raise BadInput(
                    f"{field}.guides.{index}",
                    "its k, outside, force_eos_candidate and compat differ from those of the guide before it; "
                    "values on candidates are summed over the same ones",
                )
        return terms


def weighted(guide: Any, weight: float) -> Any:
    """The guide with its strength times `weight`."""
    if isinstance(guide, Sum):
        inner = guide.weights or [1.0] * len(guide.guides)
        return dataclasses.replace(guide, weights=[weight * one for one in inner])
    if isinstance(guide, Implicit):
        return dataclasses.replace(guide, weight=weight * guide.weight)
    beta = guide.beta
    return dataclasses.replace(
        guide, beta=weight * beta if isinstance(beta, int | float) else [weight * one for one in beta]
    )
