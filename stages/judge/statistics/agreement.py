"""Do two judges agree? Raw agreement, Cohen's kappa and base rates over the same items, with bootstrap intervals.

Judges that both prefer the reference nearly always agree nearly always, even if they look at nothing. So Cohen's kappa
(1960) stands beside the raw agreement: the share of the agreement that chance does not explain, κ = (p_o − p_e) /
(1 − p_e), with the agreement p_o and that by chance p_e. The base rates say how often each judge chooses what.

Preferences lie in 1…2; an item is whatever both judged (a prompt, a pair of responses). Nothing here reads a file.
"""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stages.errors import BadInput
from stages.judge.verdicts.outcomes import IDENTICAL
from stages.judge.verdicts.summary import pair_preferences
from stages.records import Verdict
from stages.statistics.bootstrap import checked_draws
from stages.statistics.interval import Interval, interval

CHOICES: tuple[str, ...] = ("reference", "tie", "candidate")


@dataclass(frozen=True)
class Agreement:
    """Two judges on n items."""

    items: int
    raw: Interval
    """Share of the items on which both chose the same, 0…1."""
    chance: float
    """p_e: how often two judges with these base rates would agree if they looked at nothing."""
    kappa: Interval
    """1 = they always agree, 0 = as often as by chance; nan where both always make the same choice, so that chance
    alone explains all agreement."""
    base_rates: tuple[dict[str, float], dict[str, float]]
    """Share of each choice, for the first and the second judge."""
    table: np.ndarray
    """(3, 3) items by the first judge's choice (rows) and the second's, in the order of CHOICES."""


def choices(preference: ArrayLike, tie: float = 0.0) -> np.ndarray:
    """(n,) indices into CHOICES: a tie within `tie` of 1.5, else whom the preference favours.

    >>> choices([1.2, 1.5, 1.9])
    array([0, 1, 2])
    """
    values = np.asarray(preference, dtype=np.float64)
    wrong = ~((values >= 1) & (values <= 2))
    if values.ndim != 1 or wrong.any():
        shown = f"{values[wrong][0]:g}" if wrong.any() else f"shape {values.shape}"
        raise BadInput("preference", f"{shown}: one number in 1…2 for each item; leave failed verdicts out, counted")
    if not 0 <= tie < 0.5:
        raise BadInput("tie", f"{tie} is not a half-width in [0, 0.5)")
    return np.where(np.abs(values - 1.5) <= tie, 1, np.where(values > 1.5, 2, 0))


def agreement(first: ArrayLike, second: ArrayLike, *, tie: float = 0.0, draws: int = 1000, seed: int = 0) -> Agreement:
    """Agreement of two judges from their (n,) preferences for the same items, in the same order.

    `tie`: preferences within this distance of 1.5 count as a tie. Intervals are BCa over items.
    Raises BadInput for arrays of unequal length, no item, preferences outside 1…2.
    """
    rows, columns = choices(first, tie), choices(second, tie)
    if len(rows) != len(columns):
        raise BadInput("second", f"{len(columns)} preferences for {len(rows)} items")
    if not len(rows):
        raise BadInput("first", "there is no item")
    size = len(CHOICES)
    table = np.bincount(rows * size + columns, minlength=size**2).reshape(size, size)  # (3, 3)
    n = len(rows)
    # Drawing items with replacement is drawing cells in proportion to their counts.
    drawn = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=checked_draws(draws))
    drawn = drawn.reshape(-1, size, size)  # (draws, 3, 3)
    occupied = np.flatnonzero(table)
    without = table - np.eye(size**2, dtype=int)[occupied].reshape(-1, size, size)  # one item less, by its cell
    repeats = table.ravel()[occupied]
    figures = [(_raw(t), _kappa(t)) for t in (table[None], drawn, without)]
    raw, kappa = (
        interval(float(figures[0][i][0]), figures[1][i], np.repeat(figures[2][i], repeats), items=n) for i in (0, 1)
    )
    rates = tuple(dict(zip(CHOICES, (table.sum(axis) / n).tolist(), strict=True)) for axis in (1, 0))
    chance = float(np.sum(table.sum(1) * table.sum(0)) / n**2)
    return Agreement(n, raw, chance, kappa, (rates[0], rates[1]), table)


def compare_judges(
    preferences: Mapping[str, Mapping[Hashable, float]], *, tie: float = 0.0, draws: int = 1000, seed: int = 0
) -> dict[tuple[str, str], Agreement]:
    """Every pair of judges over the items that both judged: {judge: {item: preference}} → {(judge, judge): agreement}.

    Raises BadInput for fewer than two judges and for a pair that shares no item.
    """
    if len(preferences) < 2:
        raise BadInput("judges", f"{len(preferences)} of them; agreement needs two")
    pairs = {}
    for one, other in itertools.combinations(preferences, 2):
        shared = [item for item in preferences[one] if item in preferences[other]]
        if not shared:
            raise BadInput("judges", f"{one} and {other} share no item")
        first, second = ([preferences[judge][item] for item in shared] for judge in (one, other))
        pairs[one, other] = agreement(first, second, tie=tie, draws=draws, seed=seed)
    return pairs


def of_verdicts(
    verdicts: Sequence[Verdict], one: str, other: str, *, draws: int = 1000, seed: int = 0
) -> Agreement | None:
    """Agreement of two judges, by name, over the pairs of responses that both decided, a pair's orders averaged.

    Without null models and without identical responses, on which nobody can disagree. None where no pair is left.
    """
    told = [v for v in verdicts if not v.canary and v.outcome != IDENTICAL]
    ours, theirs = (pair_preferences([v for v in told if v.judge == name]) for name in (one, other))
    shared = [pair for pair in ours if pair in theirs]
    if not shared:
        return None
    return agreement([ours[pair] for pair in shared], [theirs[pair] for pair in shared], draws=draws, seed=seed)


def _raw(tables: np.ndarray) -> np.ndarray:
    """(R,) share on the diagonal of (R, 3, 3) tables; nan for an empty one."""
    totals = tables.sum((1, 2))
    return np.trace(tables, axis1=1, axis2=2) / np.where(totals > 0, totals, np.nan)


def _kappa(tables: np.ndarray) -> np.ndarray:
    """(R,) Cohen's kappa of (R, 3, 3) tables; nan where chance agreement is complete."""
    totals = tables.sum((1, 2))
    totals = np.where(totals > 0, totals, np.nan)
    chance = (tables.sum(1) * tables.sum(2)).sum(1) / totals**2  # p_e
    left = 1 - chance
    return (_raw(tables) - chance) / np.where(left > 1e-12, left, np.nan)
