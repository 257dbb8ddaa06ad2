"""How well the value foresees, in the report: rank correlations with Monte-Carlo means, by position in the response.

Reads `foresight.json` of stage `foresight`; writes the section's HTML. The figures are drawn by `report.html`.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from stages.errors import BadInput
from sweeps.judge_section import Pieces

RANKED = {"value": "value", "prefix_reward": "reward of the prefix", "difference": "difference"}


def read_foresight(folder: Path | None) -> list[dict[str, Any]]:
    """One entry a position: `place`, `prompts`, and `mean`, `low`, `high` of each of `RANKED`; empty without a folder.

    Raises BadInput for `foresight` where the folder holds no such figures.
    """
    if folder is None:
        return []
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
    """A figure and a sentence; empty where nobody measured it."""
    places: Sequence[Mapping[str, Any]] = content["foresight"]
    if not places:
        return ""
    cells = "".join(
        f"<tr><th scope=row>{escape(entry['place'])}</th>{''.join(pieces.cell(entry[name]) for name in RANKED)}</tr>"
        for entry in places
    )
    heads = "".join(f"<th>{escape(title)}" for title in RANKED.values())
    return (
        "<h2>What the value foresees</h2>"
        '<div class="split"><figure><div class="plot" id="foresight"></div>'
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
