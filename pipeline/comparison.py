"""What sets the entries of a comparison apart where what they say of themselves does not.

A point names itself (`compare.points`: its method and that method's settings). Points that a sweep made different in
something else (`value.td_lambda=0.5,1`, `method.outside=mean,drop`) would look the same in every table and plot.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.points import Point

DEFAULT = "default"
"""Stands for the choice of a group that a point leaves to the configuration."""


def told_apart(entries: Sequence[tuple[Mapping[str, Any], Point]]) -> list[dict[str, Any]]:
    """For each of several different entries what it is called beyond what it says: nothing where no two say the same.

    Of all overrides those count in which two points differ that say the same; then every entry has them, as a line
    through some points may go on to others. A key below `method` goes by its last part: `{"outside": "drop"}`.
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
