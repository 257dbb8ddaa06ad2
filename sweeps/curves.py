"""Which points a line joins in the plots of a comparison, and which text stands beside each point."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.points import Point, setting_text, told_apart_by


@dataclass(frozen=True)
class Curve:
    """Points of one method that differ in one number and in nothing else."""

    name: str
    """For the legend: the method, and the settings in which this line differs from the method's other lines."""
    points: list[int]
    """Positions of the points, ordered by that number."""


def curves(points: Sequence[Point]) -> list[Curve]:
    """Lines that have every point once. Where several numbers vary (W × K × L), lines run along the one that joins the
    most points.

    A point without a neighbour on such a line is a line by itself. So is every point of a method whose settings are
    words.
    """
    found = []
    for method in dict.fromkeys(point.method for point in points):
        rows = [row for row, point in enumerate(points) if point.method == method]
        lines = _lines(points, rows)
        several = sum(len(line) > 1 for line in lines) > 1
        found += [Curve(_name(points, line) if several and len(line) > 1 else method, line) for line in lines]
    return found


def tags(points: Sequence[Point]) -> list[str]:
    """The text beside each point: the settings in which it differs from the others on its line, or where it is alone on
    it from the others of its method.

    A setting that is a word stands without its name: `implicit · explicit`.
    """
    found = [""] * len(points)
    for curve in curves(points):
        line = [points[row] for row in curve.points]
        others = line if len(line) > 1 else [point for point in points if point.method == line[0].method]
        apart = told_apart_by(line[0], others) if len(others) > 1 else []  # the same of all on the line
        for row, point in zip(curve.points, line, strict=True):
            texts = [s if isinstance(s := point.settings[key], str) else setting_text(point, key) for key in apart]
            found[row] = " · ".join(texts) or point.method
    return found


def _lines(points: Sequence[Point], rows: Sequence[int]) -> list[list[int]]:
    """The points of a method in lines along the number that makes the fewest lines, and so joins the most points."""
    keys = [key for key in points[rows[0]].settings if all(_number(points[row].settings.get(key)) for row in rows)]
    return min((_along(points, rows, key) for key in keys), key=len, default=[[row] for row in rows])


def _along(points: Sequence[Point], rows: Sequence[int], key: str) -> list[list[int]]:
    """Groups of points that have the same settings except for `key`, each ordered by `key`."""
    groups: dict[str, list[int]] = {}
    for row in rows:
        others = {name: value for name, value in points[row].settings.items() if name != key}
        groups.setdefault(json.dumps(others, sort_keys=True, default=str), []).append(row)
    return [sorted(group, key=lambda row: points[row].settings[key]) for group in groups.values()]


def _name(points: Sequence[Point], line: Sequence[int]) -> str:
    """`ivg (beams = 4, successors = 4)`: the settings that vary in the method, but not on this line."""
    first = points[line[0]]
    here = set(told_apart_by(first, [points[row] for row in line]))
    apart = [setting_text(first, key) for key in told_apart_by(first, points) if key not in here]
    return f"{first.method} ({', '.join(apart)})"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
