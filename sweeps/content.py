"""Everything that a comparison says, as plain JSON: `comparison.json`, from which the page and the summary are made.

A figure that does not exist is null.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.training_cost import total
from sweeps.choice import Choice, Difference, named, verdict
from sweeps.curves import curves, tags
from sweeps.judged import Judged, judge_agreements, said_of
from sweeps.points import Figures, Point, shown_settings

if TYPE_CHECKING:
    from sweeps.compare import Compare


@dataclass(frozen=True)
class Study:
    """What was compared, and what came out."""

    points: Sequence[Point]
    measured: Sequence[Figures]
    """One a point."""
    judges: Sequence[Judged]
    chosen: Mapping[str, Choice]
    """By method."""
    against: Point | None
    found: Sequence[Difference]
    foresight: Sequence[Mapping[str, Any]]
    """One a value (`sweeps.foresight`)."""


def describe(compare: "Compare", study: Study) -> dict[str, Any]:
    """The content of the report on `study`, which `compare` has configured."""
    points, chosen = study.points, study.chosen
    place = {id(point): number for number, point in enumerate(points)}
    spoken_of = [d.point for d in study.found if d.point.method in chosen] or [d.point for d in study.found]
    names = {place[id(p)]: named(p, points) for p in [*spoken_of, *([study.against] if study.against else [])]}
    sentences = [verdict(points, chosen, study.found, compare.report_part)]
    sentences += [said_of(judged, names) for judged in study.judges]
    content = {
        "verdict": " ".join(filter(None, sentences)),
        "select_part": compare.select_part,
        "report_part": compare.report_part,
        "draws": compare.draws,
        "seed": compare.seed,
        "prompts": max(f.proxy.prompts for f in study.measured),
        "reference": None if study.against is None else place[id(study.against)],
        "points": _points(study),
        "curves": [asdict(curve) for curve in curves(points)],
        "slack": compare.slack,
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
                "proxy": asdict(d.proxy),
                "gold": asdict(d.gold),
                "detectable": d.gold.detectable,
                "judges": [_judged_difference(compare, judged, place, d) for judged in study.judges],
            }
            for d in study.found
        ],
        "judges": [
            {
                "judge": judged.judge,
                "reference": judged.reference,
                "points": [None if point is None else asdict(point) for point in judged.points],
                "canary": judged.canary,
            }
            for judged in study.judges
        ],
        "agreements": judge_agreements([point.verdicts for point in points], draws=compare.draws, seed=compare.seed),
        "foresight": list(study.foresight),
        "generations": _generations(compare, points),
        "lineage": [dict(node) for node in compare.runtime.lineage],
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
            "models": [asdict(cost) for cost in point.trained or ()],
            "uncounted": list(point.uncounted),
            **asdict(figure),
        }
        for point, figure, beside in zip(study.points, study.measured, tags(study.points), strict=True)
    ]


def _judged_difference(
    compare: "Compare", judged: Judged, place: Mapping[int, int], d: Difference
) -> dict[str, Any] | None:
    ours, theirs = place[id(d.point)], place[id(d.reference)]
    found = judged.difference(ours, theirs, draws=compare.draws, seed=compare.seed)
    return None if found is None else asdict(found)


def _generations(compare: "Compare", points: Sequence[Point]) -> list[dict[str, Any]]:
    """The first response of every point to the same few prompts, drawn by seed and not picked."""
    answers = [
        {s.prompt_id: s for s in sorted(point.parts[compare.report_part], key=lambda s: -s.sample)} for point in points
    ]
    shared = sorted(set.intersection(*(set(answer) for answer in answers)))
    drawn = np.random.default_rng(compare.seed).permutation(len(shared))[: compare.shown]
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
    """JSON's own types, with null for what is not a finite number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
