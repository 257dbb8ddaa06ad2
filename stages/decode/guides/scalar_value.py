"""Value Augmented Sampling (arXiv 2405.06639): the values of the k likeliest tokens tilt them."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from stages.decode.parts import require_compatible
from stages.decode.values.scalar import open_values
from stages.decode.values.settings import require_candidates, require_outside, require_strength, require_transform
from stages.engine.causal_lm import CausalLM
from stages.engine.lanes import Lanes
from stages.engine.sampling import Sampling
from stages.engine.terms import Candidates, Terms
from stages.errors import BadInput


@dataclass
class ScalarValue:
    """π(a|s) ∝ π₀(a|s)·exp(Σᵢ βᵢ·(Vᵢ(s⊕a) − c)) for the k likeliest tokens.

    `outside` says what c is and what the other tokens get (`tilt.OUTSIDE`). The candidates go through the value's trunk
    in one forward, together with the one token that the base would draw outside them. Where the trunk is the policy's
    own, frozen, whichever token is chosen has its next logits there: one forward a token. Another model steps beside
    it. EOS is a candidate like any other.
    """

    folder: Path
    """A value model's folder (`stages/learn/values/scalar_head.py`)."""
    beta: float | list[float] = 4.0
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
    """`official` tilts before temperature, as VAS's public code does: β acts as β ÷ temperature. (That code also reads
    values from stale and doubled caches; such errors are not offered.)"""

    def check(self, field: str = "guide") -> None:
        require_strength(self.beta, f"{field}.beta")
        if self.k < 1:
            raise BadInput(f"{field}.k", f"{self.k} is not a positive number of candidates")
        if self.force_eos_candidate and self.k < 2:
            raise BadInput(f"{field}.k", "force_eos_candidate takes one candidate's place; choose k of at least 2")
        require_outside(self.outside, field)
        require_transform(self.transform, field)
        require_compatible(self.compat, field)

    def scaled(self, weight: float) -> "ScalarValue":
        beta = [weight * one for one in self.beta] if isinstance(self.beta, list | tuple) else weight * self.beta
        return dataclasses.replace(self, beta=beta)

    def open(self, lanes: Lanes, sampling: Sampling, field: str = "guide") -> Terms:
        """Raises BadInput for k > V, rewards and strengths that do not match, a head of another trunk."""
        self.check(field)
        require_candidates(self.k, lanes.policy.lm.vocabulary, field)
        folder = Path(self.folder)
        values = open_values(lanes, folder, self.model, self.reward, self.beta, self.transform, field, eager=True)
        official = self.compat == "official"
        return Terms(
            [], [values], Candidates(self.k, self.outside, self.force_eos_candidate, before_temperature=official)
        )
