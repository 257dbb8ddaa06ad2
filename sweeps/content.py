"""Everything that a comparison says, as plain JSON: `comparison.json`, from which the page and the summary are made.

A figure that does not exist is null.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np

from stages.statistics.interval import Interval
from stages.training_cost import total
from sweeps.choice import Choice, Difference, named, verdict
from sweeps.curves import curves, tags
from sweeps.figures import Figures
from sweeps.judged_points import JudgedPoints, judge_agreements, said_of
from sweeps.points import Point, shown_settings


@dataclass(frozen=True)
class Rules:
    """How the comparison was made: the fields of `sweeps.compare.Compare` with the same names."""

    select_part: str
    report_part: str
    slack: float
    draws: int
    seed: int
    shown: int


@dataclass(frozen=True)
class Study:
    """What was compared, and what came out."""

    points: Sequence[Point]
    measured: Sequence[Figures]
    """One for each point."""
    judges: Sequence[JudgedPoints]
    chosen: Mapping[str, Choice]
    """By method."""
    against: Point | None
    """The reference point."""
    found: Sequence[Difference]
    foresight: Sequence[Mapping[str, Any]]
    """One for each value model (`sweeps.foresight`)."""
    lineage: Sequence[Mapping[str, Any]]
    """The stages behind the comparison (`Runtime.lineage`)."""


def describe(study: Study, rules: Rules) -> dict[str, Any]:
    """The content of the report on `study`, which was made by `rules`."""
    points, chosen = study.points, study.chosen
    place = {id(point): number for number, point in enumerate(points)}
    spoken_of = [d.point for d in study.found if d.point.method in chosen] or [d.point for d in study.found]
    names = {place[id(p)]: named(p, points) for p in [*spoken_of, *([study.against] if study.against else [])]}
    sentences = [verdict(points, chosen, study.found, rules.report_part)]
    sentences += [said_of(judged, names) for judged in study.judges]
    content = {
        "verdict": " ".join(filter(None, sentences)),
        "select_part": rules.select_part,
        "report_part": rules.report_part,
        "draws": rules.draws,
        "seed": rules.seed,
        "prompts": max(f.proxy.items for f in study.measured),
        "reference": None if study.against is None else place[id(study.against)],
        "points": _points(study),
        "curves": curves(points),
        "slack": rules.slack,
        "choices": [
            {
                "method": method,
                "point": place[id(choice.point)],
                "best": place[id(choice.best)],
                "deficit": choice.deficit,
                "allowed": choice.allowed,
                "prompts": choice.prompts,
            }
            for method, choice in chosen.items()
        ],
        "differences": [
            {
                "point": place[id(d.point)],
                "reference": place[id(d.reference)],
                "proxy": d.proxy,
                "gold": d.gold,
                "detectable": d.gold.detectable,
                "judges": [_judged_difference(rules, judged, place, d) for judged in study.judges],
            }
            for d in study.found
        ],
        "judges": [
            {
                "judge": judged.judge,
                "reference": judged.reference,
                "points": judged.points,
                "canary": judged.canary,
            }
            for judged in study.judges
        ],
        "agreements": judge_agreements([point.verdicts for point in points], draws=rules.draws, seed=rules.seed),
        "foresight": list(study.foresight),
        "generations": _generations(rules, points),
        "lineage": [dict(node) for node in study.lineage],
    }
    return _plain(content)


def _points(study: Study) -> list[dict[str, Any]]:
    picked = {id(choice.point) for choice in study.chosen.values()}
    return [
        {
            "label": point.label,
            "method": point.method,
            "name": named(point, study.points),
            "settings": dict(point.settings),
            "strength": shown_settings(point, study.points),
            "tag": beside,
            "chosen": id(point) in picked,
            "alone": point.method not in study.chosen,
            "kl_kind": point.kl_kind,
            "training": None if point.trained is None else total(point.trained),
            "models": list(point.trained or ()),
            "uncounted": list(point.uncounted),
            **vars(figure),
        }
        for point, figure, beside in zip(study.points, study.measured, tags(study.points), strict=True)
    ]


def _judged_difference(rules: Rules, judged: JudgedPoints, place: Mapping[int, int], d: Difference) -> Interval | None:
    ours, theirs = place[id(d.point)], place[id(d.reference)]
    return judged.difference(ours, theirs, draws=rules.draws, seed=rules.seed)


def _generations(rules: Rules, points: Sequence[Point]) -> list[dict[str, Any]]:
    """The first response of every point to the same few prompts. The seed draws these prompts; nobody picks them."""
    answers = [
        {s.prompt_id: s for s in sorted(point.parts[rules.report_part], key=lambda s: -s.sample)} for point in points
    ]
    shared = sorted(set.intersection(*(set(answer) for answer in answers)))
    drawn = np.random.default_rng(rules.seed).permutation(len(shared))[: rules.shown]
    return [
        {
            "prompt_id": shared[row],
            "prompt": answers[0][shared[row]].prompt,
            "responses": [
                {
                    "text": score.text,
                    "proxy": score.rewards["proxy"],
                    "gold": score.rewards["gold"],
                    "length": score.length,
                    "finished": score.finished,
                }
                for score in (answer[shared[row]] for answer in answers)
            ],
        }
        for row in sorted(drawn)
    ]


def _plain(value: Any) -> Any:
    """In JSON's own types: an interval and every other dataclass as a mapping, null for what is not a finite number."""
    if isinstance(value, Interval):
        names = {"mean": value.value, "low": value.low, "high": value.high}
        return _plain(names | {"standard_error": value.standard_error, "prompts": value.items})
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
