"""Bootstrap draws as weights, and intervals from them: pure maths over the items of a judgement.

A draw takes n items with replacement; as a weight it is how often each item came up, so that a model is refitted on a
draw by weighting its rows. Intervals: BCa (Efron 1987, "Better bootstrap confidence intervals") or percentile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm

from stages.errors import BadInput

LEVEL = 0.95
FEWEST = 1000
Kind = Literal["bca", "percentile"]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    estimate: float
    low: float
    high: float
    standard_error: float
    """Deviation of the bootstrap draws."""


def checked_draws(draws: int) -> int:
    """Raises BadInput for a number of draws that carries no 95 % interval."""
    if draws < FEWEST:
        raise BadInput("draws", f"{draws} bootstrap draws are too few for a 95 % interval; {FEWEST:,} at least")
    return draws


def draw_counts(items: int, draws: int, seed: int) -> np.ndarray:
    """(draws, items) how often each item came up; depends on its arguments alone, so that models can share draws."""
    return np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=draws).astype(np.float64)


def leave_one_out(items: int, portion: int) -> Iterator[np.ndarray]:
    """The jackknife's weights, (portion, items) at a time: every item once, but one."""
    for start in range(0, items, portion):
        rows = np.arange(start, min(start + portion, items))
        counts = np.ones((len(rows), items))
        counts[np.arange(len(rows)), rows] = 0.0
        yield counts


def interval(estimate: float, drawn: np.ndarray, left_out: np.ndarray, kind: Kind = "bca") -> Interval:
    """95 % interval of an estimate from its (draws,) bootstrap draws and its (items,) jackknife values.

    Draws on which the figure is not defined (nan) are left out; nan bounds where none is. `percentile` does not read
    `left_out`.
    """
    if kind not in ("bca", "percentile"):
        raise BadInput("interval", f"{kind!r} is neither 'bca' nor 'percentile'")
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(estimate) or len(drawn) < 2:
        return Interval(estimate, np.nan, np.nan, np.nan)
    error = float(drawn.std(ddof=1))
    if np.ptp(drawn) <= 1e-12 * max(1.0, abs(estimate)):  # nothing varies
        return Interval(estimate, estimate, estimate, error)
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if kind == "bca":
        tails = _moved(tails, estimate, drawn, left_out[np.isfinite(left_out)])
    low, high = np.quantile(drawn, tails)
    return Interval(estimate, float(low), float(high), error)


def _moved(tails: np.ndarray, estimate: float, drawn: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Efron 1987, eq. 6.8: α → Φ(z₀ + (z₀ + z_α) / (1 − a(z₀ + z_α))), with the bias z₀ and the acceleration a."""
    below = np.mean(drawn < estimate) + np.mean(drawn == estimate) / 2
    bias = norm.ppf(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))  # z₀
    deviations = left_out.mean() - left_out  # (items,)
    spread = np.sum(deviations**2)
    acceleration = np.sum(deviations**3) / (6 * spread**1.5) if spread > 0 else 0.0  # a, eq. 6.6
    moved = bias + norm.ppf(tails)
    return norm.cdf(bias + moved / (1 - acceleration * moved))
