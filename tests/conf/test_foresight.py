"""Whose value's foresight the report shows: of the points whose decoding needs the value, where someone measures it."""

from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose

from pipeline.graph import Graph
from pipeline.points import Point


@pytest.mark.parametrize("sweep", ["demo", "ablation"])
def test_one_word_puts_the_value_s_foresight_into_the_report(sweep: str, points_of: Callable[..., list[Point]]) -> None:
    def compared(*overrides: str) -> tuple[set[str], Any]:
        graph = Graph(points_of(sweep, *overrides))
        (key,) = graph.goals
        return {graph.nodes[k].name for k in graph.ancestors(key)}, graph.nodes[key]

    names, node = compared()
    assert "foresight" not in names
    assert not any(entry["foresight"] for entry in node.config["points"])
    names, node = compared("foresight=on", "foresight.samples=4")
    assert "foresight" in names
    for entry in node.config["points"]:
        by = (entry["settings"].get("token_by"), entry["settings"].get("chunk_by"))
        assert bool(entry["foresight"]) == (entry["method"] == "vas" or "explicit" in by), entry
    assert len({entry["foresight"] for entry in node.config["points"]} - {None}) == 1  # they share their value
    assert all("decode" in entry for entry in node.config["points"])


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("fudge", True),
        ("cd", True),
        ("args", True),
        ("cd_blockwise", True),
        ("eft", False),
        ("bon", False),
        ("ppo", False),
    ],
)
def test_a_value_is_measured_where_the_decoding_needs_it_and_trained_for_nothing_else(method: str, shown: bool) -> None:
    graph = Graph([Point.of(compose("config", [f"method={method}", "foresight=on"]))])
    names = {node.name for node in graph.nodes.values()}
    assert ("foresight" in names) == ("value" in names) == shown
