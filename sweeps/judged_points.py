"""What judges say about the points: how often each wins against the method that it was compared with.

Win rates are in points, 0–100. The unit is the prompt, as everywhere in a comparison.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import BadInput
from stages.judge.statistics.agreement import of_verdicts
from stages.judge.verdicts.outcomes import IDENTICAL
from stages.judge.verdicts.summary import canary_summary, pair_preferences, summary
from stages.judge.winrate import length_controlled
from stages.records import Verdict
from stages.statistics.interval import Interval
from stages.statistics.means import by_prompt, mean_interval, paired_difference


@dataclass(frozen=True)
class Judgement:
    """What one judge says about one point."""

    win_rate: Interval
    """In points. The orders of a pair and the samples of a prompt are averaged first. nan without any verdict."""
    length_controlled: Interval | None
    """The win rate as if responses were equally long (AlpacaEval 2's model, without difficulties of instructions); None
    where all responses are the reference's or their lengths never differ."""
    notes: tuple[str, ...]
    """Why the length-controlled win rate may be unreliable."""
    verdicts: int
    """How many were asked for."""
    failures: dict[str, int]
    """How many of them failed, by outcome."""
    worst: float
    """The win rate if the point had lost wherever a verdict failed."""
    best: float
    """The win rate if it had won there."""
    swap_consistency: float | None
    """Share of the pairs with the same winner in both orders; None for a judge that sees no order."""
    position_effect: float | None
    """Points that a response gains by being shown second."""
    itself: bool
    """Whether the point is the reference itself: all its responses are the reference's."""


@dataclass(frozen=True)
class JudgedPoints:
    """What one judge says about all points."""

    judge: str
    reference: str
    """The method that every point was compared with."""
    points: tuple[Judgement | None, ...]
    """In the points' order; None for a point that this judge did not see."""
    rates: tuple[Mapping[str, float], ...]
    """Prompt id → win rate, for each point."""
    canary: Mapping[str, float] | None
    """What `canary_summary` says of the null model; None where none was judged."""

    def difference(self, ours: int, theirs: int, *, draws: int, seed: int) -> Interval | None:
        """Win rate of one point minus another's, paired over prompts; None where they share none."""
        if not self.rates[ours].keys() & self.rates[theirs].keys():
            return None
        return paired_difference(self.rates[ours], self.rates[theirs], draws=draws, seed=seed)


def judge_points(verdicts: Sequence[Sequence[Verdict]], *, draws: int, seed: int) -> list[JudgedPoints]:
    """Every judge on every point, in the points' order. Raises BadInput for a judge with several references."""
    names = dict.fromkeys(v.judge for rows in verdicts for v in rows)
    return [_judged(name, [[v for v in rows if v.judge == name] for rows in verdicts], draws, seed) for name in names]


def judge_agreements(verdicts: Sequence[Sequence[Verdict]], *, draws: int, seed: int) -> list[dict[str, Any]]:
    """How far every two judges agree on the pairs of responses that both decided: `{judges, points}`.

    Each point has the number of `pairs`, the `raw` agreement in points, Cohen's `kappa` with its interval over pairs,
    and how often each of the two prefers the candidate. It is None where one of them did not see the point, and where
    all responses are the reference's.
    """
    names = list(dict.fromkeys(v.judge for rows in verdicts for v in rows))
    return [
        {"judges": list(two), "points": [_agreement(rows, two, draws, seed) for rows in verdicts]}
        for two in itertools.combinations(names, 2)
    ]


def _agreement(verdicts: Sequence[Verdict], two: tuple[str, str], draws: int, seed: int) -> dict[str, Any] | None:
    if (found := of_verdicts(verdicts, *two, draws=draws, seed=seed)) is None:
        return None
    return {
        "pairs": found.items,
        "raw": 100 * found.raw.value,
        "kappa": found.kappa.value,
        "kappa_low": found.kappa.low,
        "kappa_high": found.kappa.high,
        "candidate_preferred": [100 * rates["candidate"] for rates in found.base_rates],
    }


def _judged(name: str, verdicts: Sequence[Sequence[Verdict]], draws: int, seed: int) -> JudgedPoints:
    references = sorted({v.reference for rows in verdicts for v in rows})
    if len(references) > 1:
        raise BadInput(
            "points", f"judge {name} held some against {references[0]} and some against {references[1]}; one reference"
            " is needed: give all points the same",
        )  # fmt: skip
    real = [[v for v in rows if not v.canary] for rows in verdicts]
    canaries = {(v.prompt_id, v.sample, v.order): v for rows in verdicts for v in rows if v.canary}
    return JudgedPoints(
        judge=name,
        reference=references[0],
        points=tuple(_judgement(rows, draws, seed) if rows else None for rows in real),
        rates=tuple(_rates(rows) for rows in real),
        canary=canary_summary(list(canaries.values())) if canaries else None,
    )


def _rates(verdicts: Sequence[Verdict], missing: float | None = None) -> dict[str, float]:
    """Prompt id → win rate. A failed verdict counts as the preference `missing` (1 lost … 2 won), or is left out."""
    preferences = pair_preferences(verdicts, missing)
    return by_prompt((prompt_id for prompt_id, _ in preferences), (100 * (p - 1) for p in preferences.values()))


def _judgement(verdicts: Sequence[Verdict], draws: int, seed: int) -> Judgement:
    rates, said = _rates(verdicts), summary(verdicts)
    itself = all(v.outcome == IDENTICAL for v in verdicts)
    lc, notes = (None, ()) if itself else _length_controlled(verdicts, rates, draws, seed)
    return Judgement(
        win_rate=mean_interval(np.array(list(rates.values())), draws=draws, seed=seed),
        length_controlled=lc,
        notes=notes,
        verdicts=len(verdicts),
        failures={
            key.removeprefix("failures/"): int(value) for key, value in said.items() if key.startswith("failures/")
        },
        worst=float(np.mean(list(_rates(verdicts, 1.0).values()))),
        best=float(np.mean(list(_rates(verdicts, 2.0).values()))),
        swap_consistency=said.get("swap_consistency"),
        position_effect=said.get("position_effect"),
        itself=itself,
    )


def _length_controlled(
    verdicts: Sequence[Verdict], rates: Mapping[str, float], draws: int, seed: int
) -> tuple[Interval | None, tuple[str, ...]]:
    known = [v for v in verdicts if v.preference is not None]
    ids = [v.prompt_id for v in known]
    ours, theirs = (
        np.array(list(by_prompt(ids, [float(getattr(v, name)) for v in known]).values()))
        for name in ("candidate_chars", "reference_chars")
    )  # (B,), (B,)
    if len(rates) < 2 or not np.ptp(theirs - ours) > 0:
        return None, ()
    preference = 1 + np.array(list(rates.values())) / 100  # (B,), in the order of the ids
    found = length_controlled(preference, ours, theirs, np.zeros(len(ours)), draws=draws, seed=seed)
    low, high = found.lc_interval
    return Interval(found.lc_win_rate, low, high, found.lc_standard_error, found.prompts), found.notes


def said_of(judged: JudgedPoints, named: Mapping[int, str]) -> str:
    """A sentence on the points whose positions and names are given; empty where the judge saw none of them."""
    wins = []
    for number, name in named.items():
        if (found := judged.points[number]) is not None and not found.itself and np.isfinite(found.win_rate.value):
            low, high = found.win_rate.low, found.win_rate.high
            interval = f" [{low:.0f}, {high:.0f}]" if np.isfinite(low) else ""
            wins.append(f"{name} wins {found.win_rate.value:.0f} %{interval}")
    if not wins:
        return ""
    listed = ", ".join(wins[:-1]) + " and " + wins[-1] if len(wins) > 1 else wins[0]
    return f"By the judge {judged.judge}, {listed} of its comparisons with {judged.reference}."
