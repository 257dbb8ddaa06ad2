"""Extra labels for points with the same method and settings.

In the comparison a point says what it is: its method and that method's settings (`compare.points`). A sweep may vary
something else (`value.td_lambda=0.5,1`, `method.outside=mean,drop`). Those points would have one name in every table
and plot, so each gets the value of what was varied as an extra label.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.points import Point

DEFAULT = "default"
"""Stands for the choice of a group that a point leaves to the configuration."""


def extra_labels(entries: Sequence[tuple[Mapping[str, Any], Point]]) -> list[dict[str, Any]]:
    """The extra labels of each entry (what it says of itself, its point): {key: value}, empty where none are needed.

    An override's key is a label where two points that say the same differ in it. Every entry then has that label, so
    that a line of a plot can be drawn through all points that have it in common. `method.` is left out of a key:
    `{"outside": "drop"}`.
    """
    same: dict[str, list[Point]] = {}
    for said, point in entries:
        same.setdefault(json.dumps(said, sort_keys=True, default=str), []).append(point)
    written = dict.fromkeys(key for _, point in entries for key in point.overrides)
    alike = [points for points in same.values() if len(points) > 1]
    needed = [key for key in written if any(len({repr(_at(p, key)) for p in points}) > 1 for points in alike)]
    return [{key.removeprefix("method."): _at(point, key) for key in needed} for _, point in entries]


def _at(point: Point, key: str) -> Any:
    """A point's value at the key of an override, a number, text, truth value or None; a group's choice as text."""
    if "." in key and "/" not in key:
        try:
            value = point.resolve(key)
        except UsageError:  # another configuration has no such key
            return None
        return value if value is None or isinstance(value, str | int | float) else json.dumps(value, default=str)
    return point.overrides.get(key, DEFAULT)
