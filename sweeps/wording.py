"""How the figures of a comparison are written, in the terminal's table and on the page alike.

`found` and `estimate` below are parts of the content that `sweeps.content.describe` makes.
"""

from collections.abc import Mapping
from typing import Any


def failed_text(found: Mapping[str, Any]) -> str:
    """`2 of 128`: verdicts that failed."""
    return f"{sum(found['failures'].values())} of {found['verdicts']}"


def bounds_text(found: Mapping[str, Any]) -> str:
    """The win rate were all failed verdicts lost … and all won; `–` where none failed."""
    return f"{found['worst']:.1f} … {found['best']:.1f}" if found["failures"] else "–"


def number_text(value: float | None) -> str:
    """Three significant digits, as people write them; `–` for none.

    >>> [number_text(v) for v in (0.1234, 12.345, 123.45, 4567.8, -0.5, None)]
    ['0.123', '12.3', '123', '4,568', '-0.500', '–']
    """
    if value is None:
        return "–"
    size = abs(value)
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:,.{digits}f}"


def power_text(value: float | None) -> str:
    """`3.2e11`, as people write FLOPs in a terminal; 0 is 0, `–` none.

    >>> [power_text(v) for v in (3.21e11, 0.0, None)]
    ['3.2e11', '0', '–']
    """
    return "–" if value is None else f"{value:.1e}".replace("e+", "e") if value else "0"


def count_text(value: float | None) -> str:
    """`12,345`; `–` for none."""
    return "–" if value is None else f"{value:,.0f}"


def interval_text(estimate: Mapping[str, Any]) -> str:
    """`mean [low, high]`, all with the digits that the mean gets."""
    mean, low, high = estimate["mean"], estimate["low"], estimate["high"]
    if mean is None or low is None or high is None:
        return number_text(mean)
    size = max(abs(mean), abs(high - low))
    digits = 2 if size < 10 else 1 if size < 100 else 0
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def trained_sets(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float], list[str]]]:
    """(models, what training them cost, who needs them) for every set of models that a point needs; the same models at
    the same cost are one entry. Who needs them is named as in `users`."""
    found: dict[tuple[Any, ...], tuple[str, Mapping[str, float], list[int]]] = {}
    for number, point in enumerate(content["points"]):
        if point["models"]:
            models = ", ".join(dict.fromkeys(model["model"] for model in point["models"]))
            found.setdefault((models, *point["training"].values()), (models, point["training"], []))[2].append(number)
    return [(models, cost, users(content, numbers)) for models, cost, numbers in found.values()]


def users(content: Mapping[str, Any], numbers: list[int]) -> list[str]:
    """The points with these positions, by name: `vas` where they are all points of vas, else each as `vas (β = 4)`."""
    points = content["points"]
    whole = {
        method
        for method in (points[number]["method"] for number in numbers)
        if all(number in numbers for number, point in enumerate(points) if point["method"] == method)
    }
    return list(
        dict.fromkeys(
            points[n]["method"] if points[n]["method"] in whole else f"{points[n]['method']} ({points[n]['strength']})"
            for n in numbers
        )
    )
