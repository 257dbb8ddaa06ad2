"""The folder of a run, for people."""

import yaml

from pipeline.graph import Graph
from pipeline.points import Point
from pipeline.runs import publish_links


def test_each_point_has_a_folder_with_its_configuration_and_links_to_its_results(small, tmp_path) -> None:
    graph = small.graph()
    graph.points[0].label = "vas beta=4/2"
    small.run(graph)
    (tmp_path / "runs/now").mkdir(parents=True)
    publish_links(tmp_path / "runs/now", graph, small.store)
    point = tmp_path / "runs/now/vas_beta=4_2"  # no folder can be named by a /
    assert (point / "second/said.txt").read_text() == "WELL\nHI\n"
    assert yaml.safe_load((point / "config.yaml").read_text())["first"] == {
        "_target_": "toy_stages.Say",
        "word": "well",
    }
    assert (tmp_path / "runs/latest").resolve() == tmp_path / "runs/now"


def test_the_comparison_lies_at_the_top_as_files_of_its_own(small, tmp_path) -> None:
    compare = {"_target_": "toy_stages.Gather", "points": {"said": "${stage:second}"}}
    graph = Graph([Point.of(small.config(goal=["compare"], compare=compare))])
    small.run(graph)
    for _ in range(2):  # a folder that was filled before is filled anew
        (tmp_path / "runs/now").mkdir(parents=True, exist_ok=True)
        publish_links(tmp_path / "runs/now", graph, small.store)
    table = tmp_path / "runs/now/comparison.csv"
    assert not table.is_symlink()
    assert table.read_text() == "WELL HI\n"


def test_what_did_not_run_has_no_link(small, tmp_path) -> None:
    graph = small.graph(stages={"first": {"how": "badly"}})
    small.run(graph)
    publish_links(tmp_path, graph, small.store)
    assert (tmp_path / "one/apart").exists()
    assert not (tmp_path / "one/first").exists()
