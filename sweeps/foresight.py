"""How well the value foresees, in the report: rank correlations with Monte-Carlo means, by position in the response.

Reads `foresight.json` of stage `foresight`; writes the section's HTML. The figures are drawn by `report.html`.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from stages.errors import BadInput
from sweeps.choice import named
from sweeps.judge_section import Pieces
from sweeps.points import Point

RANKED = {"value": "value", "prefix_reward": "reward of the prefix", "difference": "difference"}


def values_measured(points: Sequence[Point]) -> list[dict[str, Any]]:
    """One entry a value that was measured: the points that it steers (`of`), and its `places`. Raises BadInput."""
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
    """One entry a position: `place`, `prompts`, and `mean`, `low`, `high` of each of `RANKED`.

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


def foresight_section(content: Mapping[str, Any], pieces: Pieces) -> str:
    """A figure and a sentence for each value; empty where nobody measured one."""
    measured = content["foresight"]
    parts = [_of_value(number, entry["of"], entry["places"], pieces) for number, entry in enumerate(measured)]
    return "".join(["<h2>What the value foresees</h2>", *parts]) if parts else ""


def _of_value(number: int, of: str, places: Sequence[Mapping[str, Any]], pieces: Pieces) -> str:
    cells = "".join(
        f"<tr><th scope=row>{escape(entry['place'])}</th>{''.join(pieces.cell(entry[name]) for name in RANKED)}</tr>"
        for entry in places
    )
    heads = "".join(f"<th>{escape(title)}" for title in RANKED.values())
    return (
        f'<h3>The value of {escape(of)}</h3><div class="split"><figure><div class="plot" id="foresight-{number}"></div>'
        "<figcaption>Rank correlation with the mean reward of fresh responses that go on from the prefix (Monte "
        "Carlo), by how much of the response stands. Dots with 95 % intervals over prompts. A value is worth its "
        "training where it lies above the reward of the prefix as it stands, which costs none.</figcaption></figure>"
        f"<aside><h3>Rank correlation with the truth</h3><table><thead><tr><th>position{heads}</tr></thead>"
        f"<tbody>{cells}</tbody></table><p class=note>{escape(foresight_text(places))} {places[0]['prompts']} prompts "
        "that the value was not trained on; Spearman's ρ.</p></aside></div>"
    )


def foresight_text(places: Sequence[Mapping[str, Any]]) -> str:
    """Where the value is better than the prefix's own reward, in words; nothing of where one ranks nothing."""
    known = {e["place"]: e["difference"] for e in places if None not in e["difference"].values()}
    better = [place for place, found in known.items() if found["low"] > 0]
    worse = [place for place, found in known.items() if found["high"] < 0]
    open_ = [place for place in known if place not in (*better, *worse)]
    parts = (("foresees better than", better), ("foresees worse than", worse), ("cannot be told apart from", open_))
    said = [f"{what} the reward of the prefix at {_listed(where)}" for what, where in parts if where]
    return f"The value {'; it '.join(said)}." if said else ""


def _listed(places: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(places[:-1]), places[-1]]))
