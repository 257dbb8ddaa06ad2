"""What judges say of the points: how often each wins against the method it was held against, on one part's prompts.

Reads `verdicts.parquet` (records.Verdict) of every point that was judged. Win rates are in points, 0–100; the unit is
the prompt, as everywhere in a comparison.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages import records
from stages.errors import BadInput
from stages.judge.asking.answers import IDENTICAL
from stages.judge.statistics.agreement import of_verdicts
from stages.judge.verdicts.verdicts import Verdict, by_pair, canary_summary, summary
from stages.judge.winrate import length_controlled
from stages.statistics.intervals import Estimate, by_prompt, mean_interval, paired_difference


@dataclass(frozen=True)
class Judgement:
    """One judge on one point, held against the reference."""

    win_rate: Estimate
    """Points; a pair's orders and a prompt's samples are averaged first. nan without any verdict."""
    length_controlled: Estimate | None
    """As if responses were equally long (AlpacaEval 2's model, without difficulties of instructions); None where both
    methods answered alike or lengths never differ."""
    notes: tuple[str, ...]
    """What speaks against the length-controlled win rate."""
    verdicts: int
    failures: dict[str, int]
    """Verdicts that never came, by outcome."""
    worst: float
    """The win rate were all failed verdicts lost …"""
    best: float
    """… and were they all won."""
    swap_consistency: float | None
    """Share of the pairs with the same winner in both orders; None for a judge that sees no order."""
    position_effect: float | None
    """Points that a response gains by being shown second."""
    itself: bool
    """Whether the point is the reference itself: all responses are identical."""


@dataclass(frozen=True)
class Judged:
    """One judge on all points."""

    judge: str
    reference: str
    """The method that every point was held against."""
    points: tuple[Judgement | None, ...]
    """In the points' order; None for a point that this judge did not see."""
    rates: tuple[Mapping[str, float], ...]
    """Prompt id → win rate, for each point."""
    canary: Mapping[str, float] | None
    """What `canary_summary` says of the null model; None where none was judged."""

    def difference(self, ours: int, theirs: int, *, draws: int, seed: int) -> Estimate | None:
        """Win rate of one point minus another's, paired over prompts; None where they share none."""
        if not self.rates[ours].keys() & self.rates[theirs].keys():
            return None
        return paired_difference(self.rates[ours], self.rates[theirs], draws=draws, seed=seed)


def load_verdicts(given: Sequence[Mapping[str, Any]], part: str) -> list[list[Verdict]]:
    """Each point's verdicts on the prompts of `part`; none where its entry names no `verdicts`.

    Raises BadInput for `points.<i>.verdicts` that cannot be read or hold none on `part`.
    """
    found = []
    for number, entry in enumerate(given):
        if entry.get("verdicts") is None:
            found.append([])
            continue
        place = f"points.{number}.verdicts"
        path = Path(entry["verdicts"]) / "verdicts.parquet"
        try:
            verdicts = records.read(path, Verdict)
        except OSError as error:
            raise BadInput(place, f"{path} cannot be read: {error.strerror or 'there is no such file'}") from error
        except ValueError as error:
            raise BadInput(place, str(error).splitlines()[0]) from error
        here = [v for v in verdicts if v.part == part]
        if not any(not v.canary for v in here):
            parts = ", ".join(sorted({v.part for v in verdicts if not v.canary}))
            where = f"only on {parts}" if parts else "nor on any other"
            raise BadInput(place, f"{entry['label']} was not judged on part {part!r}, {where}")
        found.append(here)
    return found


def judge_points(verdicts: Sequence[Sequence[Verdict]], *, draws: int, seed: int) -> list[Judged]:
    """Every judge on every point, in the points' order. Raises BadInput for a judge with several references."""
    names = dict.fromkeys(v.judge for rows in verdicts for v in rows)
    return [_judged(name, [[v for v in rows if v.judge == name] for rows in verdicts], draws, seed) for name in names]


def judge_agreements(verdicts: Sequence[Sequence[Verdict]], *, draws: int, seed: int) -> list[dict[str, Any]]:
    """How far every two judges agree on the pairs that both decided: `{judges, points}`, for each point the pairs, the
    raw agreement in points, Cohen's kappa with its interval over pairs, and who prefers the candidate how often.

    None for a point that one of them did not see, or where every response is the reference's.
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
        "raw": 100 * found.raw.estimate,
        "kappa": found.kappa.estimate,
        "kappa_low": found.kappa.low,
        "kappa_high": found.kappa.high,
        "candidate_preferred": [100 * rates["candidate"] for rates in found.base_rates],
    }


def _judged(name: str, verdicts: Sequence[Sequence[Verdict]], draws: int, seed: int) -> Judged:
    references = sorted({v.reference for rows in verdicts for v in rows})
    if len(references) > 1:
        raise BadInput(
            "points", f"judge {name} held some against {references[0]} and some against {references[1]}; one reference"
            " is needed: give all points the same",
        )  # fmt: skip
    real = [[v for v in rows if not v.canary] for rows in verdicts]
    canaries = {(v.prompt_id, v.sample, v.order): v for rows in verdicts for v in rows if v.canary}
    return Judged(
        judge=name,
        reference=references[0],
        points=tuple(_judgement(rows, draws, seed) if rows else None for rows in real),
        rates=tuple(_rates(rows) for rows in real),
        canary=canary_summary(list(canaries.values())) if canaries else None,
    )


def _rates(verdicts: Sequence[Verdict], missing: float | None = None) -> dict[str, float]:
    """Prompt id → win rate; failed verdicts are left out, or count as `missing` (0 lost … 1 won)."""
    ids, values = [], []
    for (prompt_id, _), group in by_pair(verdicts).items():
        wins = [missing if v.preference is None else v.preference - 1 for v in group]
        known = [win for win in wins if win is not None]
        if known:
            ids.append(prompt_id)
            values.append(100 * float(np.mean(known)))
    return by_prompt(ids, values)


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
        worst=float(np.mean(list(_rates(verdicts, 0.0).values()))),
        best=float(np.mean(list(_rates(verdicts, 1.0).values()))),
        swap_consistency=said.get("swap_consistency"),
        position_effect=said.get("position_effect"),
        itself=itself,
    )


def _length_controlled(
    verdicts: Sequence[Verdict], rates: Mapping[str, float], draws: int, seed: int
) -> tuple[Estimate | None, tuple[str, ...]]:
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
    return Estimate(found.lc_win_rate, low, high, found.lc_standard_error, found.prompts), found.notes


def said_of(judged: Judged, named: Mapping[int, str]) -> str:
    """A sentence on the points whose numbers and names are given; empty where the judge saw none of them."""
    wins = []
    for number, name in named.items():
        if (found := judged.points[number]) is not None and not found.itself and np.isfinite(found.win_rate.mean):
            low, high = found.win_rate.low, found.win_rate.high
            interval = f" [{low:.0f}, {high:.0f}]" if np.isfinite(low) else ""
            wins.append(f"{name} wins {found.win_rate.mean:.0f} %{interval}")
    if not wins:
        return ""
    listed = ", ".join(wins[:-1]) + " and " + wins[-1] if len(wins) > 1 else wins[0]
    return f"By the judge {judged.judge}, {listed} of its comparisons with {judged.reference}."
