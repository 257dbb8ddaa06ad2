"""Means over prompts with bootstrap intervals, and differences between methods over the same prompts.

The unit is the prompt: samples of one prompt resemble each other, so they are averaged first, and a bootstrap draw
takes whole prompts (a cluster bootstrap). Intervals are BCa; the seed decides the draws. All arrays are over prompts,
(B,). Nothing here reads a file.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from stages.statistics.bootstrap import checked_draws
from stages.statistics.interval import Interval, interval

_CELLS = 4_000_000
"""Resampled values held at once (32 MB): many prompts are drawn in portions."""


def by_prompt(prompt_ids: Iterable[str], values: Iterable[float]) -> dict[str, float]:
    """Mean of each prompt's samples, in the order of the ids.

    >>> by_prompt(["b", "a", "b"], [1.0, 5.0, 3.0])
    {'a': 5.0, 'b': 2.0}
    """
    collected: dict[str, list[float]] = {}
    for prompt_id, value in zip(prompt_ids, values, strict=True):
        collected.setdefault(prompt_id, []).append(value)
    return {prompt_id: float(np.mean(collected[prompt_id])) for prompt_id in sorted(collected)}


def mean_interval(values: np.ndarray, *, draws: int, seed: int) -> Interval:
    """Mean over prompts of (B,) values with its interval.

    >>> mean_interval(np.array([1.0, 1.0, 1.0]), draws=1000, seed=0).high  # nothing varies
    1.0
    """
    return ratio_interval(values, np.ones_like(values, dtype=np.float64), draws=draws, seed=seed)


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray, *, draws: int, seed: int) -> Interval:
    """Σ numerators ÷ Σ denominators over prompts, e.g. tokens per second; both (B,), prompts are drawn in pairs.

    Everything is nan without prompts, or where a numerator is nan. The bounds are nan with a single prompt, which says
    nothing about others. Raises BadInput for fewer than 1,000 draws.
    """
    checked_draws(draws)
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)  # (B,), (B,)
    prompts, nan = len(above), float("nan")
    if prompts == 0 or not np.isfinite(above).all() or not below.sum() > 0:
        return Interval(nan, nan, nan, nan, prompts)
    ratio = float(above.sum() / below.sum())
    if prompts == 1:
        return Interval(ratio, nan, nan, nan, prompts)
    return interval(ratio, _drawn(above, below, draws, seed), _left_out(above, below), items=prompts)


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float], *, draws: int, seed: int) -> Interval:
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
    """(draws,) the ratio on prompts drawn with replacement; nan where no denominator was drawn. Which prompts are drawn
    depends on the seed and on B alone, so figures over as many prompts share their draws."""
    generator = np.random.default_rng(seed)
    portion = max(1, _CELLS // len(above))
    ratios = []
    for start in range(0, draws, portion):
        rows = generator.integers(len(above), size=(min(portion, draws - start), len(above)))  # (draws, B)
        totals = below[rows].sum(1)
        ratios.append(above[rows].sum(1) / np.where(totals > 0, totals, np.nan))
    return np.concatenate(ratios)


def _left_out(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """(B,) the ratio without each prompt in turn: the jackknife."""
    rest = below.sum() - below
    return (above.sum() - above)[rest > 0] / rest[rest > 0]
