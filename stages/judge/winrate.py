"""Win rates of a candidate against a reference, raw and at equal length, with intervals; and their differences.

Arrays are over prompts, (n,); results are in points (0–100). The raw win rate and its standard error are AlpacaEval's;
the length-controlled one is fitted anew in every bootstrap draw. AlpacaEval's own error bar is the deviation of the
predictions of one fit; it leaves out that the fit itself is uncertain, and comes out 2–6 times too small.

    table = join(verdicts, items)                       # by instruction
    length_controlled(table.preference, table.len_model, table.len_reference, table.difficulty, gamed=rows)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stages.errors import BadInput
from stages.judge.statistics.length_control import PORTION, LengthControl, Weights
from stages.judge.statistics.prompt_table import PromptTable, check_same_prompts
from stages.statistics.bootstrap import checked_draws, draw_counts, leave_one_out
from stages.statistics.interval import Interval, Kind, interval

EXTREME = (20.0, 80.0)
"""Outside of these raw win rates few prompts tell the fit what happens at equal length."""
LEAST_OVERLAP = 0.05
"""Where fewer of the responses than this share are longer (or shorter) than the reference's, LC extrapolates."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class WinRate:
    """How often a candidate is preferred over the reference, in points."""

    win_rate: float
    standard_error: float
    """sd ÷ √n of the preferences (ddof = 1), as AlpacaEval prints it."""
    lc_win_rate: float
    lc_standard_error: float
    """Standard deviation over bootstrap draws; the model is fitted anew in each."""
    weights: Weights
    C: float | None = None
    """The inverse strength of the L1 penalty, given or chosen; None: no penalty."""
    prompts: int = 0
    win_rate_interval: tuple[float, float] = (np.nan, np.nan)
    """95 %"""
    lc_interval: tuple[float, float] = (np.nan, np.nan)
    """95 %"""
    notes: tuple[str, ...] = ()
    """Why the length-controlled win rate is unreliable; empty where nothing speaks against it."""


@dataclass(frozen=True)
class WinRateDifference:
    """Win rates of ours − theirs on the same prompts, in points. An interval without 0 in it tells the two apart."""

    win_rate: Interval
    lc_win_rate: Interval
    prompts: int
    notes: tuple[str, ...] = ()


def raw_win_rate(preference: ArrayLike) -> tuple[float, float]:
    """(win rate, standard error) in points: mean and sd ÷ √n (ddof = 1) of preference − 1. nan error for n = 1.

    >>> raw_win_rate([1.0, 2.0, 2.0, 2.0])  # mean of 0, 1, 1, 1; sd = 0.5, √n = 2
    (75.0, 25.0)
    """
    wins = _preferences(preference) - 1
    error = 100 * wins.std(ddof=1) / np.sqrt(len(wins)) if len(wins) > 1 else np.nan
    return float(100 * wins.mean()), float(error)


def length_controlled(
    preference: ArrayLike,
    len_model: ArrayLike,
    len_reference: ArrayLike,
    difficulty: ArrayLike,
    gamed: Sequence[Mapping[str, Any]] | None = None,
    C: float | None = None,  # noqa: N803
    *,
    draws: int = 1000,
    seed: int = 0,
    kind: Kind = "bca",
) -> WinRate:
    """Raw and length-controlled win rate of one candidate. The order of the rows changes nothing, to the last bit.

    preference: 1 (the reference is preferred) … 2 (the candidate is). len_model, len_reference: characters.
    difficulty: of each instruction (`join` finds it by text). gamed: the baselines' rows, see `LengthControl`.
    C: inverse strength of the L1 penalty; None: chosen by cross-validation with `gamed`, no penalty without.
    draws, seed, kind: of the bootstrap, and of its intervals. BCa refits once more for each prompt.
    The chosen C and the gamed rows are the same in all draws, for they belong to the method and not to the sample.
    (Drawing the gamed rows along with the prompts changes the standard error by less than 1 % of itself.)

    Raises BadInput for arrays of unequal length, fewer than 2 prompts, preferences outside 1…2 and values that are
    not finite: failed verdicts are counted elsewhere, and none gets here as a number.
    """
    rows = _checked(preference, len_model, len_reference, difficulty)
    rows = rows[:, np.lexsort(rows)]  # one order, whatever came in
    control, chosen = _control(rows, gamed, C)
    labels, delta = rows[0] - 1, rows[2] - rows[1]
    whole = np.ones((1, control.size))
    weights = control.fit(whole, chosen)  # (1, 3)
    lc = float(control.win_rates(weights, whole)[0])
    drawn, left_out = _resampled(control, labels, chosen, weights[0], draws, seed, kind)
    win_rate, error = raw_win_rate(rows[0])
    raw_interval = interval(win_rate, drawn[0], left_out[0], items=control.size, kind=kind)
    lc_interval = interval(lc, drawn[1], left_out[1], items=control.size, kind=kind)
    return WinRate(
        win_rate,
        error,
        lc,
        lc_interval.standard_error,
        Weights(*(float(w) for w in weights[0])),
        chosen,
        control.size,
        (raw_interval.low, raw_interval.high),
        (lc_interval.low, lc_interval.high),
        reliability(win_rate, delta),
    )


def win_rate_difference(
    ours: PromptTable,
    theirs: PromptTable,
    gamed: Sequence[Mapping[str, Any]] | None = None,
    C: float | None = None,  # noqa: N803
    *,
    draws: int = 1000,
    seed: int = 0,
    kind: Kind = "bca",
) -> WinRateDifference:
    """Ours − theirs, raw and length-controlled, on the same prompts: what makes a prompt hard for both cancels.

    Each is fitted anew on every draw, with its own C where C is None. Arguments as in `length_controlled`.

    Raises BadInput unless both were judged on the same prompts, quoting those that were not.
    """
    check_same_prompts(ours, theirs)
    estimates, drawn, left_out, notes = [], [], [], []
    for name, table in (("ours", ours), ("theirs", theirs)):
        order = sorted(range(len(table.instructions)), key=table.instructions.__getitem__)
        rows = _checked(table.preference, table.len_model, table.len_reference, table.difficulty)[:, order]
        control, chosen = _control(rows, gamed, C)
        whole = np.ones((1, control.size))
        weights = control.fit(whole, chosen)
        resampled = _resampled(control, rows[0] - 1, chosen, weights[0], draws, seed, kind)
        estimates.append(np.array([100 * np.mean(rows[0] - 1), control.win_rates(weights, whole)[0]]))
        drawn.append(resampled[0])
        left_out.append(resampled[1])
        notes += [f"{name}: {note}" for note in reliability(estimates[-1][0], rows[2] - rows[1])]
    estimate, drawn, left_out = (pair[0] - pair[1] for pair in (estimates, drawn, left_out))  # each: raw, LC
    prompts = len(ours.instructions)
    raw, lc = (interval(float(estimate[i]), drawn[i], left_out[i], items=prompts, kind=kind) for i in (0, 1))
    return WinRateDifference(raw, lc, prompts, tuple(notes))


def reliability(win_rate: float, delta: np.ndarray) -> tuple[str, ...]:
    """Why a length-controlled win rate may be unreliable: the raw one is extreme, or lengths barely overlap.

    delta: (n,) characters of the reference − the candidate.
    """
    notes = []
    if not EXTREME[0] <= win_rate <= EXTREME[1]:
        notes.append(
            f"the raw win rate of {win_rate:.1f} lies outside {EXTREME[0]:g}–{EXTREME[1]:g}: "
            "the length-controlled one is unreliable"
        )
    longer, shorter = np.mean(delta < 0), np.mean(delta > 0)
    if np.ptp(delta) == 0:
        notes.append("the difference in length never varies: its effect cannot be told, and nothing is controlled")
    elif min(longer, shorter) < LEAST_OVERLAP:
        side, share = ("longer", longer) if longer < shorter else ("shorter", shorter)
        notes.append(
            f"lengths barely overlap: the candidate is {side} than the reference on {share:.1%} of the prompts, "
            "so equal length is an extrapolation and the length-controlled win rate is unreliable"
        )
    return tuple(notes)


def _resampled(
    control: LengthControl,
    labels: np.ndarray,
    C: float | None,  # noqa: N803
    start: np.ndarray,
    draws: int,
    seed: int,
    kind: Kind,
) -> tuple[np.ndarray, np.ndarray]:
    """(2, draws) raw and LC on bootstrap draws of the prompts, and (2, n) with each prompt left out in turn."""

    def figures(counts: np.ndarray) -> np.ndarray:
        weights = control.fit(counts, C, start)
        return np.stack([100 * (counts @ labels) / counts.sum(1), control.win_rates(weights, counts)])

    drawn = figures(draw_counts(control.size, checked_draws(draws), seed))
    if kind == "percentile":
        return drawn, np.empty((2, 0))
    return drawn, np.concatenate([figures(counts) for counts in leave_one_out(control.size, PORTION)], axis=1)


def _control(
    rows: np.ndarray,
    gamed: Sequence[Mapping[str, Any]] | None,
    C: float | None,  # noqa: N803
) -> tuple[LengthControl, float | None]:
    """The rows ready to be fitted, and the C to fit them with."""
    if C is not None and not 0 < C < np.inf:
        raise BadInput("C", f"{C} is not a positive number; leave it out for cross-validation or no penalty")
    control = LengthControl(rows[0] - 1, rows[2] - rows[1], rows[3], gamed)
    return control, control.choose_penalty() if C is None and gamed else C


def _preferences(preference: ArrayLike) -> np.ndarray:
    values = np.asarray(preference, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise BadInput("preference", "one number for each prompt is needed, and there is none")
    wrong = ~((values >= 1 - _ROUNDING) & (values <= 2 + _ROUNDING))  # nan too
    if wrong.any():
        first = int(np.argmax(wrong))
        problem = f"{values[first]:g} (row {first}) is not in 1…2; leave failed verdicts out, counted"
        raise BadInput("preference", problem)
    return np.clip(values, 1, 2)


def _checked(*columns: ArrayLike) -> np.ndarray:
    """(4, n) preference, len_model, len_reference, difficulty."""
    names = ("preference", "len_model", "len_reference", "difficulty")
    arrays = [_preferences(columns[0])]
    for name, column in zip(names[1:], columns[1:], strict=True):
        values = np.asarray(column, dtype=np.float64)
        if values.shape != arrays[0].shape:
            raise BadInput(name, f"{values.shape} values for {arrays[0].shape} preferences")
        if not np.isfinite(values).all():
            raise BadInput(name, f"row {int(np.argmin(np.isfinite(values)))} is not finite")
        arrays.append(values)
    if len(arrays[0]) < 2:
        raise BadInput("preference", "one prompt alone has no deviation; 2 at least")
    return np.stack(arrays)
