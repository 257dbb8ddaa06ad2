"""The drawing of the stages behind a comparison."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from sweeps.stage_graph import _layers, draw, duration


def test_the_graph_shows_every_stage_with_its_time(synthetic: ModuleType, study: Path) -> None:
    svg = draw(synthetic.lineage())
    assert svg in (study / "report.html").read_text()
    assert svg.count("<rect") == len(synthetic.lineage()) + 1
    assert svg.count('class="reused"') == 8
    assert "1:47 min" in svg
    assert "vas beta=4.0 k=20" in svg


def test_a_stage_lies_left_of_all_that_need_it(synthetic: ModuleType) -> None:
    inputs = {node["key"]: node["inputs"] for node in synthetic.lineage()}
    layer = _layers(inputs)
    assert all(layer[upstream] < layer[key] for key, upstreams in inputs.items() for upstream in upstreams)


def test_boxes_never_overlap_in_a_large_graph() -> None:
    nodes = [{"stage": f"s{i}", "key": f"k{i}", "inputs": [], "seconds": 1.0, "reused": False} for i in range(40)]
    for i, node in enumerate(nodes):
        node["inputs"] = [f"k{j}" for j in range(i) if (i * 7 + j * 3) % 11 == 0]
    places = re.findall(r"translate\(([\d.]+) ([\d.]+)\)", draw(nodes))
    assert len(places) == len(set(places)) == 41


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.0 s"), (59.9, "59.9 s"), (59.96, "1:00 min"), (3600, "1:00 h"), (None, "–")]
)
def test_times_as_people_say_them(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_names_are_escaped() -> None:
    svg = draw([{"stage": "<b>", "key": "k", "inputs": [], "seconds": 1.0, "reused": False, "label": '"<i>"'}])
    assert "<b>" not in svg
    assert "<i>" not in svg
