"""What an opened guide adds to a policy's distribution: terms that tilt all tokens, and terms that tilt candidates."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from stages.engine.distribution import Distribution
from stages.engine.lane import Lane
from stages.engine.sampling import Sampling


class DenseTerm(Protocol):
    """Tilts every token from what the lanes hold already: their newest logits or states."""

    name: str
    betas: tuple[float, ...]
    """(M,) its strengths, where a row brings none."""
    flops: float
    """FLOPs of one row's tilt beyond the lanes' forwards."""

    def tilt(self, base: Distribution, sampling: Sampling, betas: Tensor) -> Tensor:
        """(R, V) float32, with the rows' strengths (R, M); −inf where a token is never to be drawn."""
        ...


class ScalarTerm(Protocol):
    """Tilts candidates by their values: t_a = Σ_m β_m·(V_m(s⊕a) − c_m)."""

    name: str
    lane: Lane
    betas: tuple[float, ...]
    """(M,) its strengths, where a row brings none."""
    flops: float
    """FLOPs of one state's values beyond the lane's forward."""

    def values(self, states: tuple[Tensor, ...]) -> Tensor:
        """(…, M) float64 from the lane's states (…, D)."""
        ...


@dataclass
class Candidates:
    """Which tokens the scalar terms tilt, and what the others get."""

    k: int
    outside: str = "mean"
    force_eos: bool = False
    before_temperature: bool = False
    """Tilts are divided by the temperature, as if they had been added to the raw logits (`compat: official`)."""


@dataclass
class Terms:
    """An opened guide: what it adds to the base policy's distribution. `Terms()` adds nothing."""

    dense: list[DenseTerm] = field(default_factory=list)
    scalar: list[ScalarTerm] = field(default_factory=list)
    candidates: Candidates | None = None
