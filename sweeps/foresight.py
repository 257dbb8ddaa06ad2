"""How well a value model foresees the reward, read from `foresight.json` of stage `foresight`.

The figures are rank correlations with the mean reward of fresh responses (Monte Carlo), by position in the response.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.errors import BadInput
from sweeps.choice import named
from sweeps.points import Point

RANKED = {"value": "value", "prefix_reward": "reward of the prefix", "difference": "difference"}
"""What is correlated with the truth → how the report calls it."""


def values_measured(points: Sequence[Point]) -> list[dict[str, Any]]:
    """One entry for each value that was measured: the points that it steers (`of`), and its `places`.

    Raises BadInput as `read_foresight` does.
    """
    folders = dict.fromkeys(point.foresight for point in points if point.foresight is not None)
    return [{"of": _steered_by(folder, points), "places": read_foresight(folder)} for folder in folders]


def _steered_by(folder: Path, points: Sequence[Point]) -> str:
    """`vas, ivg (token_by = explicit)`: a method by its name where all its points have this value."""
    names: dict[str, None] = {}
    for point in points:
        if point.foresight == folder:
            whole = all(other.foresight == folder for other in points if other.method == point.method)
            names[point.method if whole else named(point, points)] = None
    return ", ".join(names)


def read_foresight(folder: Path) -> list[dict[str, Any]]:
    """One entry for each position: `place`, `prompts`, and `mean`, `low`, `high` of each of `RANKED`.

    Raises BadInput for `foresight` where the folder holds no such figures.
    """
    path = Path(folder) / "foresight.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return [
            {"place": place, "prompts": len(found["truth"])}
            | {name: dict(zip(("mean", "low", "high"), _figures(found, name), strict=True)) for name in RANKED}
            for place, found in report.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput("foresight", f"{path} holds no figures of stage foresight ({error})") from error


def _figures(found: Mapping[str, Any], name: str) -> list[float]:
    return [float(found["correlation"][name]), *(float(bound) for bound in found["interval"][name])]
