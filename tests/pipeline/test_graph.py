"""From configurations to one graph of unique stages."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pipeline.errors import UsageError
from pipeline.graph import Graph, show, with_paths
from pipeline.points import Composition, Point

SAY = "toy_stages.Say"


pytestmark = pytest.mark.usefixtures("small")


def composed(**changed: Any) -> Composition:
    config = {
        "goal": ["last"],
        "word": "hi",
        "stages": {
            "first": {"_target_": SAY, "word": "well"},
            "last": {"_target_": SAY, "word": "${word}", "heard": "${stage:first}"},
            "apart": {"_target_": SAY, "word": "alone"},
        },
        "compare": {"_target_": "toy_stages.Gather", "points": {"word": "${word}", "said": "${stage:last}"}},
    }
    return Composition(OmegaConf.merge(OmegaConf.create(config), changed))  # type: ignore[arg-type]


def points(shared: Composition, *words: str) -> list[Point]:
    return [Point(word, shared, (("word", word),), {"word": word}) for word in words]


def test_the_graph_is_what_the_goal_reaches_in_order() -> None:
    graph = Graph(points(composed(), "a"))
    assert [node.name for node in graph.nodes.values()] == ["first", "last"]
    (goal,) = graph.goals
    assert graph.ancestors(goal) == [graph.nodes[goal].inputs["first"]]


def test_points_share_stages_and_each_stage_knows_its_points() -> None:
    graph = Graph(points(composed(), "a", "b", "a"))
    counted = sorted((node.name, [point.label for point in node.points]) for node in graph.nodes.values())
    assert counted == [("first", ["a", "b", "a"]), ("last", ["a", "a"]), ("last", ["b"])]
    assert graph.naive == 6  # three points of two stages


def test_equal_stages_of_two_compositions_are_one() -> None:
    one, other = (points(composed(), "a")[0] for _ in range(2))
    graph = Graph([one, other])
    assert len(graph.nodes) == 2
    assert one.stages == other.stages


def test_the_comparison_holds_each_point_once_with_the_keys_of_what_it_refers_to() -> None:
    graph = Graph(points(composed(goal=["compare"]), "a", "b", "a"))
    (compare,) = graph.goals
    entries = graph.nodes[compare].config["points"]
    assert [entry["word"] for entry in entries] == ["a", "b"]
    assert {entry["said"] for entry in entries} == {f"stage://{key}" for key in graph.nodes[compare].inputs.values()}


def test_a_slot_is_filled_and_what_stands_beside_it_is_laid_over() -> None:
    shared = composed(
        goal=["slotted", "empty"],
        filling={"_target_": SAY, "word": "filled", "how": "well", "resources": {"cores": 1}},
        nothing=None,
        stages={
            "slotted": {"slot": "${filling}", "how": "badly", "resources": {"memory": 2}},
            "empty": {"slot": "${nothing}"},
        },
    )
    point = Point("", shared)
    graph = Graph([point])
    (node,) = graph.nodes.values()
    assert (node.config["word"], node.config["how"]) == ("filled", "badly")
    assert (node.resources.cores, node.resources.memory) == (1, 2)
    assert graph.config_of(point, "empty") is None


def test_a_reference_to_an_empty_slot_is_none() -> None:
    graph = Graph([Point("", composed(stages={"first": None}))])
    (node,) = graph.nodes.values()
    assert node.config["heard"] is None
    assert node.inputs == {}


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"goal": ["lst"]}, "goal: there is no stage 'lst' in stages; did you mean 'last'?"),
        ({"goal": [1]}, "goal: [1] is not a stage's name or a list of names, such as [compare]"),
        ({"stages": {"first": 5}}, "stages.first: 5 is not a stage's fields with its class as _target_"),
        ({"stages": {"first": {"heard": "${stage:last}"}}}, "stages.last: refers to itself (last → first → last)"),
        ({"stages": {"first": {"_target_": None}}}, "stages.first._target_: missing; name the stage's class"),
        ({"stages": {"first": {"code": "freeze"}}}, "stages.first.code: freeze is not one of track, pin, ignore"),
        ({"stages": {"first": {"word": float("nan")}}}, "stages.first: nan has no canonical form"),
        ({"stages": {"first": {"word": "${file:/no/such}"}}}, "stages.first.word: /no/such does not exist"),
    ],
)
def test_what_cannot_be_planned_is_one_line(changed: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as refused:
        Graph([Point("", composed(**changed))])
    assert str(refused.value) == line


def test_a_file_counts_by_its_content(tmp_path: Path) -> None:
    def key(name: str, content: str) -> str:
        (tmp_path / name).write_text(content)
        point = Point("", composed(stages={"first": {"word": f"${{file:{tmp_path / name}}}"}}))
        Graph([point])
        return point.stages["first"]

    assert key("a.csv", "1") == key("b.csv", "1") != key("b.csv", "2")


def test_a_stage_is_handed_paths_for_what_it_refers_to() -> None:
    config = {"a": "stage://k1", "b": ["file:///x.csv", "text", 3]}
    assert with_paths(config, lambda key: Path("/store") / key) == {"a": "/store/k1", "b": ["/x.csv", "text", 3]}


def test_a_long_value_is_cut_to_a_line() -> None:
    assert show({"a": 1}) == '{"a": 1}'
    assert show("x" * 61) == "x" * 57 + "…"
