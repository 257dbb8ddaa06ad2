"""A figure with its 95 % interval, from bootstrap draws: BCa (Efron 1987) or percentile.

Source of BCa: B. Efron, "Better bootstrap confidence intervals", Journal of the American Statistical Association 82,
1987. Pure maths; nothing here reads a file.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from stages.errors import BadInput

LEVEL = 0.95
POWER = 0.80
Kind = Literal["bca", "percentile"]


@dataclass(frozen=True)
class Interval:
    """A figure over items (prompts, pairs) with its 95 % interval."""

    value: float
    low: float
    high: float
    standard_error: float
    """Standard deviation of the bootstrap draws."""
    items: int
    """How many items the figure is over."""

    @property
    def detectable(self) -> float:
        """The smallest true difference from 0 that a sample of this size finds with 80 % power at this level.

        >>> round(Interval(0.0, -1.0, 1.0, standard_error=0.5, items=64).detectable, 3)  # (1.960 + 0.842) · 0.5
        1.401
        """
        return float((ndtri(0.5 + LEVEL / 2) + ndtri(POWER)) * self.standard_error)

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on one side of zero, 0 where it does not."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def interval(value: float, drawn: np.ndarray, left_out: np.ndarray, *, items: int, kind: Kind = "bca") -> Interval:
    """The interval of a figure from its (draws,) values on bootstrap draws and its (items,) values without each item.

    Draws on which the figure is not defined (nan) are left out. The bounds are nan where the figure is, and where it is
    defined on fewer than two draws. `percentile` does not read `left_out`. Raises BadInput for another `kind`.

    >>> interval(1.0, np.ones(1000), np.ones(3), items=3).high  # nothing varies
    1.0
    """
    if kind not in ("bca", "percentile"):
        raise BadInput("interval", f"{kind!r} is neither 'bca' nor 'percentile'")
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(drawn) < 2:
        return Interval(value, np.nan, np.nan, np.nan, items)
    error = float(drawn.std(ddof=1))
    if np.ptp(drawn) <= 1e-12 * max(1.0, abs(value)):  # nothing varies: a bound, or equal answers
        return Interval(value, value, value, error, items)
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if kind == "bca":
        tails = _moved(tails, value, drawn, left_out[np.isfinite(left_out)])
    low, high = np.quantile(drawn, tails)
    return Interval(value, float(low), float(high), error, items)


def _moved(tails: np.ndarray, value: float, drawn: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Efron 1987, eq. 6.8: α → Φ(z₀ + (z₀ + z_α) / (1 − a(z₀ + z_α))), with the bias z₀ and the acceleration a."""
    below = np.mean(drawn < value) + np.mean(drawn == value) / 2
    bias = ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))  # z₀
    deviations = left_out.mean() - left_out  # (items,)
    spread = np.sum(deviations**2)
    acceleration = np.sum(deviations**3) / (6 * spread**1.5) if spread > 0 else 0.0  # a, eq. 6.6
    moved = bias + ndtri(tails)
    return ndtr(bias + moved / (1 - acceleration * moved))
