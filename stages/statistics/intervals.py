"""Means over prompts with bootstrap intervals, and differences between methods over the same prompts.

The unit is the prompt: samples of one prompt resemble each other, so they are averaged first and a bootstrap draw
takes whole prompts (a cluster bootstrap). Intervals are BCa (Efron 1987, "Better bootstrap confidence intervals"),
seeded; all arrays are over prompts, (B,). Nothing here reads a file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

LEVEL = 0.95
POWER = 0.80
_CELLS = 4_000_000
"""Resampled values held at once (32 MB): many prompts are drawn in portions."""


@dataclass(frozen=True)
class Estimate:
    """A figure over prompts with its 95 % interval."""

    mean: float
    low: float
    high: float
    standard_error: float
    """Deviation of the bootstrap draws."""
    prompts: int

    @property
    def detectable(self) -> float:
        """The smallest true difference that a sample of this size finds with 80 % power at this level.

        >>> round(Estimate(0.0, -1.0, 1.0, 0.5, 64).detectable, 3)  # (1.960 + 0.842) · 0.5
        1.401
        """
        return float((norm.ppf(0.5 + LEVEL / 2) + norm.ppf(POWER)) * self.standard_error)

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on one side of zero, 0 where it does not."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def by_prompt(prompt_ids: Iterable[str], values: Iterable[float]) -> dict[str, float]:
    """Mean of each prompt's samples, in the order of the ids.

    >>> by_prompt(["b", "a", "b"], [1.0, 5.0, 3.0])
    {'a': 5.0, 'b': 2.0}
    """
    collected: dict[str, list[float]] = {}
    for prompt_id, value in zip(prompt_ids, values, strict=True):
        collected.setdefault(prompt_id, []).append(value)
    return {prompt_id: float(np.mean(collected[prompt_id])) for prompt_id in sorted(collected)}


def mean_interval(values: np.ndarray, *, draws: int, seed: int) -> Estimate:
    """Mean over prompts of (B,) values with its interval.

    >>> mean_interval(np.array([1.0, 1.0, 1.0]), draws=1000, seed=0).high  # nothing varies
    1.0
    """
    return ratio_interval(values, np.ones_like(values, dtype=np.float64), draws=draws, seed=seed)


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray, *, draws: int, seed: int) -> Estimate:
    """Σ numerators ÷ Σ denominators over prompts, e.g. tokens per second; both (B,), prompts are drawn in pairs.

    nan everywhere without prompts or where a value is nan; nan bounds with a single prompt, which says nothing about
    others. Raises ValueError for fewer than 1,000 draws.
    """
    if draws < 1000:
        raise ValueError(f"{draws} bootstrap draws are too few for a 95 % interval; 1,000 at least")
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)  # (B,), (B,)
    prompts, nan = len(above), float("nan")
    if prompts == 0 or not np.isfinite(above).all() or not below.sum() > 0:
        return Estimate(nan, nan, nan, nan, prompts)
    estimate = float(above.sum() / below.sum())
    if prompts == 1:
        return Estimate(estimate, nan, nan, nan, prompts)
    drawn = _drawn(above, below, draws, seed)  # (draws,)
    left_out = _left_out(above, below)  # (B,)
    low, high = _bca(estimate, drawn, left_out)
    return Estimate(estimate, low, high, float(drawn.std(ddof=1)), prompts)


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float], *, draws: int, seed: int) -> Estimate:
    """Mean of ours − theirs over the prompts that both answered; a hard prompt is hard for both, and cancels.

    Raises ValueError where they share no prompt.
    """
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        raise ValueError("the two share no prompt")
    differences = np.array([ours[prompt] - theirs[prompt] for prompt in shared])  # (B,)
    return mean_interval(differences, draws=draws, seed=seed)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of (B,) values: sd ÷ √B; 0 for a single one.

    >>> standard_error(np.array([1.0, 2.0, 3.0, 4.0]))  # sd = √(5/3) = 1.2910, √B = 2
    0.6454972243679028
    """
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _drawn(above: np.ndarray, below: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws,) the ratio on prompts drawn with replacement; the draws depend on seed and B alone, so are shared."""
    generator = np.random.default_rng(seed)
    portion = max(1, _CELLS // len(above))
    ratios = []
    for start in range(0, draws, portion):
        rows = generator.integers(len(above), size=(min(portion, draws - start), len(above)))  # (draws, B)
        totals = below[rows].sum(1)
        ratios.append(above[rows].sum(1) / np.where(totals > 0, totals, np.nan))
    drawn = np.concatenate(ratios)
    return drawn[np.isfinite(drawn)]


def _left_out(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """(B,) the ratio without each prompt in turn: the jackknife."""
    rest = below.sum() - below
    return (above.sum() - above)[rest > 0] / rest[rest > 0]


def _bca(estimate: float, drawn: np.ndarray, left_out: np.ndarray) -> tuple[float, float]:
    """Bias-corrected and accelerated bounds (Efron 1987): percentiles of the draws, moved for bias and skewness."""
    if np.ptp(drawn) <= 1e-12 * max(1.0, abs(estimate)):  # nothing varies: a bound, or equal answers
        return estimate, estimate
    below = np.mean(drawn < estimate) + np.mean(drawn == estimate) / 2
    bias = norm.ppf(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))  # z₀
    deviations = left_out.mean() - left_out  # (B,)
    spread = np.sum(deviations**2)
    acceleration = np.sum(deviations**3) / (6 * spread**1.5) if spread > 0 else 0.0  # a
    bounds = []
    for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        moved = bias + norm.ppf(tail)
        bounds.append(norm.cdf(bias + moved / (1 - acceleration * moved)))
    low, high = np.quantile(drawn, bounds)
    return float(low), float(high)
