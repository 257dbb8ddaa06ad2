"""The part of the report about the value models: how well each foresees, by position in the response. HTML.

The figures are drawn by `report.html`.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sweeps.foresight import RANKED
from sweeps.html_cells import cell


def foresight_section(content: Mapping[str, Any]) -> str:
    """A figure, a sentence and a table for each value; empty where none was measured."""
    measured = content["foresight"]
    parts = [_of_value(number, entry["of"], entry["places"]) for number, entry in enumerate(measured)]
    return "".join(["<h2>What the value foresees</h2>", *parts]) if parts else ""


def _of_value(number: int, of: str, places: Sequence[Mapping[str, Any]]) -> str:
    cells = "".join(
        f"<tr><th scope=row>{escape(entry['place'])}</th>{''.join(cell(entry[ranked]) for ranked in RANKED)}</tr>"
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
    """In words: at which positions the value foresees better or worse than the reward of the prefix as it stands.

    Positions are left out where one of the two gives all prefixes the same rank.
    """
    known = {e["place"]: e["difference"] for e in places if None not in e["difference"].values()}
    better = [place for place, found in known.items() if found["low"] > 0]
    worse = [place for place, found in known.items() if found["high"] < 0]
    open_ = [place for place in known if place not in (*better, *worse)]
    parts = (("foresees better than", better), ("foresees worse than", worse), ("cannot be told apart from", open_))
    said = [f"{what} the reward of the prefix at {_listed(where)}" for what, where in parts if where]
    return f"The value {'; it '.join(said)}." if said else ""


def _listed(places: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(places[:-1]), places[-1]]))
