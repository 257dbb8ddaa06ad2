"""The implicit value of a tuned model as a guide: emulated fine-tuning (arXiv 2310.12962), IVG (arXiv 2409.17819)."""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.engine.causal_lm import CausalLM
from stages.engine.distribution import Distribution
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.sampling import Sampling
from stages.engine.terms import Terms
from stages.errors import BadInput


@dataclass
class ImplicitValue:
    """z = z_base + w·(z_tuned − z_untuned), logits before temperature.

    Truncation is chosen from the base before the mixture, so that KL stays finite and exact. Each model has its own
    chat template and cache; all share one vocabulary. Several tuned models: a `Sum` of these.
    """

    tuned: CausalLM
    untuned: CausalLM | None = None
    """Null: the policy itself, whose logits are there already."""
    weight: float = 1.0
    """w; 0 = base."""

    def check(self, field: str = "guide") -> None:
        if not math.isfinite(self.weight):
            raise BadInput(f"{field}.weight", f"{self.weight} is not a finite number; 0 is the base policy")

    def scaled(self, weight: float) -> "ImplicitValue":
        return dataclasses.replace(self, weight=weight * self.weight)

    def open(self, lanes: Lanes, sampling: Sampling, field: str = "guide") -> Terms:
        """Raises BadInput where a model has another vocabulary than the policy: both are named."""
        self.check(field)
        tuned = lanes.join(self.tuned, f"{field}.tuned", eager=True)
        untuned = lanes.join(self.untuned, f"{field}.untuned", eager=True)
        tuned.wants_logits = untuned.wants_logits = True
        return Terms([LogRatioTilt(lanes, tuned, untuned, self.weight)])


class LogRatioTilt:
    """w·(z_tuned − z_untuned) ÷ temperature: the mixture of logits before temperature, as a tilt of every token."""

    flops = 0.0
    """Both logits are the lanes'."""

    def __init__(self, lanes: Lanes, tuned: Lane, untuned: Lane, weight: float) -> None:
        self.policy, self.tuned, self.untuned = lanes.policy, tuned, untuned
        self.name = f"logits of {tuned.lm.folder} or {untuned.lm.folder}"
        self.betas = (float(weight),)

    def tilt(self, base: Distribution, sampling: Sampling, betas: Tensor) -> Tensor:
        """(R, V); a token that either of the two rules out (a padded vocabulary's) is never drawn. A row of weight 0
        reads nothing: it is the base, whatever the two say."""
        nothing = betas[:, 0] == 0  # (R,)
        if bool(nothing.all()):
            return torch.zeros_like(base.weights)
        assert self.tuned.logits is not None
        assert self.untuned.logits is not None
        above, below = self.policy.lm.fit(self.tuned.logits), self.policy.lm.fit(self.untuned.logits)  # (R, V)
        ratio = (above - below).mul_((betas / sampling.temperature).float())
        # −∞ − (−∞) is NaN and w·∞ may be +∞, which no model said. (A sum is −∞ where one of two is, and neither is NaN:
        # NaN of a model stays and is named.)
        ratio = ratio.masked_fill_((above + below).isneginf(), -torch.inf)
        return ratio.masked_fill_(nothing[:, None], 0.0)
