"""Table cells and names as every section of the report writes them. All text is escaped.

`content` is what `sweeps.content.describe` makes; `number` is a point's position in `content["points"]`.
"""

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from sweeps.wording import number_text

NONE = '<td class="none">–</td>'


def method_class(content: Mapping[str, Any], number: int) -> str:
    """The class that gives everything of one method its colour: `m0` … `m7`."""
    methods = list(dict.fromkeys(point["method"] for point in content["points"]))
    return f"m{methods.index(content['points'][number]['method']) % 8}"


def name(content: Mapping[str, Any], number: int) -> str:
    """The name of a point with a dot in its colour."""
    return f'<span class="dot {method_class(content, number)}"></span>{escape(content["points"][number]["name"])}'


def signed(estimate: Mapping[str, Any]) -> str:
    """A difference with its sign and its interval."""
    if estimate["mean"] is None or estimate["low"] is None:
        return number_text(estimate["mean"])
    return minus(f"{estimate['mean']:+.2f} <small>[{estimate['low']:+.2f}, {estimate['high']:+.2f}]</small>")


def minus(text: str) -> str:
    """The text with a real minus sign before numbers; hyphens inside words stay."""
    return re.sub(r"(?<!\w)-(?=[\d.])", "−", text)


def cell(estimate: Mapping[str, Any], digits: int = 2, scale: float = 1.0) -> str:
    """A table cell: the mean with its interval below it, both times `scale`; a dash where there is no mean."""
    if estimate["mean"] is None:
        return NONE
    mean = f"{estimate['mean'] * scale:,.{digits}f}"
    if estimate["low"] is None:
        return minus(f"<td>{mean}</td>")
    low, high = (f"{estimate[side] * scale:,.{digits}f}" for side in ("low", "high"))
    return minus(f"<td>{mean}<small>[{low}, {high}]</small></td>")


def row_head(content: Mapping[str, Any], number: int) -> str:
    """The start of a table row: the method and the settings of a point, and whether it was chosen."""
    point = content["points"][number]
    badge = ""
    if point["chosen"]:
        badge = '<span class="badge">chosen</span>'
    if number == content["reference"]:
        badge += '<span class="badge quiet">reference</span>'
    kind = ' class="chosen"' if point["chosen"] else ""
    dot = f'<span class="dot {method_class(content, number)}"></span>'
    strength = escape(point["strength"])
    return f"<tr{kind}><th scope=row>{dot}{escape(point['method'])}</th><td class=text>{strength}{badge}</td>"
