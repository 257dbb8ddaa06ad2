"""Reads the points of a comparison from the folders that their stages wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.errors import BadInput
from stages.payloads import read_records
from stages.records import Score, Verdict
from stages.reward import read_uncounted
from stages.training_cost import read_costs
from sweeps.points import Point

REWARDS = ("proxy", "gold")


def load_points(given: Sequence[Mapping[str, Any]], report_part: str) -> list[Point]:
    """The points with their scores on all parts and their verdicts on the report part. `given`: `Compare.points`.

    Raises BadInput for `points.<i>…` that is incomplete, unreadable or has no rewards.
    """
    if not given:
        raise BadInput("points", "there is nothing to compare")
    points = []
    for number, entry in enumerate(given):
        place = f"points.{number}"
        if missing := [key for key in ("label", "method", "settings", "score") if key not in entry]:
            raise BadInput(place, f"has no {missing[0]!r}")
        scores = read_records(Path(entry["score"]) / "scores.parquet", Score, f"{place}.score")
        if not any(score.part == report_part for score in scores):
            parts = ", ".join(sorted({score.part for score in scores})) or "none at all"
            raise BadInput("report_part", f"{entry['label']} has no scores on part {report_part!r}, only on {parts}")
        if absent := [name for name in REWARDS if name not in scores[0].rewards]:
            raise BadInput(f"{place}.score", f"{entry['label']} was not scored by a reward named {absent[0]!r}")
        try:
            decode = Path(entry["decode"]) if entry.get("decode") else None
            trained = None if decode is None else read_costs(decode)
            uncounted = [] if decode is None else read_uncounted(decode)
        except FileNotFoundError as error:
            raise BadInput(
                f"{place}.decode", f"{error.filename} does not exist; give a folder of stage decode"
            ) from error
        settings = dict(entry["settings"]) | _varied(entry, given)
        foresight = Path(entry["foresight"]) if entry.get("foresight") else None
        label, method = str(entry["label"]), str(entry["method"])
        points.append(Point(label, method, settings, scores, (), trained, foresight, uncounted))
    judged = load_verdicts(given, report_part)
    return [replace(point, verdicts=verdicts) for point, verdicts in zip(points, judged, strict=True)]


def _varied(entry: Mapping[str, Any], given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a sweep varied beside the method's own settings, where the points of the method differ in it."""
    same = [other.get("varied") or {} for other in given if other.get("method") == entry["method"]]
    varied: Mapping[str, Any] = entry.get("varied") or {}
    return {key: value for key, value in varied.items() if len({repr(other.get(key)) for other in same}) > 1}


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
        verdicts = read_records(Path(entry["verdicts"]) / "verdicts.parquet", Verdict, place)
        here = [v for v in verdicts if v.part == part]
        if not any(not v.canary for v in here):
            parts = ", ".join(sorted({v.part for v in verdicts if not v.canary}))
            where = f"only on {parts}" if parts else "nor on any other"
            raise BadInput(place, f"{entry['label']} was not judged on part {part!r}, {where}")
        found.append(here)
    return found
