"""Which points of a comparison a line joins in its plots, and what stands beside each point."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.points import Point, setting_text, told_apart_by


@dataclass(frozen=True)
class Curve:
    """Points of one method that differ in one number and in nothing else."""

    name: str
    """For the legend: the method, with what sets this line apart from others of the method."""
    points: list[int]
    """Along that number."""


def curves(points: Sequence[Point]) -> list[Curve]:
    """Every point once. Where several numbers vary (W × K × L), the one that joins most points makes the lines.

    A point without such a neighbour stands alone; so do all of a method whose settings are words.
    """
    found = []
    for method in dict.fromkeys(point.method for point in points):
        rows = [row for row, point in enumerate(points) if point.method == method]
        lines = _lines(points, rows)
        several = sum(len(line) > 1 for line in lines) > 1
        found += [Curve(_name(points, line) if several and len(line) > 1 else method, line) for line in lines]
    return found


def tags(points: Sequence[Point]) -> list[str]:
    """What stands beside each point: what it differs in from its neighbours on the line, else from its method's others.

    Words need no name: `implicit · explicit`.
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
    """The rows of a method in lines: those of the number that makes fewest, so joins most."""
    keys = [key for key in points[rows[0]].settings if all(_number(points[row].settings.get(key)) for row in rows)]
    return min((_along(points, rows, key) for key in keys), key=len, default=[[row] for row in rows])


def _along(points: Sequence[Point], rows: Sequence[int], key: str) -> list[list[int]]:
    """Rows that agree in all settings but `key`, in its order."""
    groups: dict[str, list[int]] = {}
    for row in rows:
        others = {name: value for name, value in points[row].settings.items() if name != key}
        groups.setdefault(json.dumps(others, sort_keys=True, default=str), []).append(row)
    return [sorted(group, key=lambda row: points[row].settings[key]) for group in groups.values()]


def _name(points: Sequence[Point], line: Sequence[int]) -> str:
    """`ivg (beams = 4, successors = 4)`: what varies in the method but not on this line."""
    first = points[line[0]]
    here = set(told_apart_by(first, [points[row] for row in line]))
    apart = [setting_text(first, key) for key in told_apart_by(first, points) if key not in here]
    return f"{first.method} ({', '.join(apart)})"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
