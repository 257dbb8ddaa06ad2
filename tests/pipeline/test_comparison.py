"""A comparison knows all its points, and what sets them apart."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from conf.schemas.register import register_schemas
from hydra_plugins.tilt.launcher import labels, register_launcher
from hydra_plugins.tilt.sweeper import register_sweeper
from pipeline.config import register_resolvers
from pipeline.graph import Graph
from pipeline.points import Composition, Point


@pytest.fixture(autouse=True)
def composing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for register in (register_resolvers, register_schemas, register_launcher, register_sweeper):
        register()
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        yield


def compared(method: str, *overrides: Mapping[str, object]) -> list[dict]:
    """The comparison's entries of points that share one composition."""
    shared = Composition(compose("config", [f"method={method}"]))
    written = [{"method": method} | {key: str(value) for key, value in one.items()} for one in overrides]
    names = labels(written)
    points = [
        Point(name, shared, tuple(one.items()), text) for name, one, text in zip(names, overrides, written, strict=True)
    ]
    graph = Graph(points)
    (key,) = graph.goals
    scores = [upstream for name, upstream in graph.nodes[key].inputs.items() if name.startswith("score")]
    assert len(set(scores)) == len(graph.nodes[key].config["points"])  # it waits for all that it reads
    return graph.nodes[key].config["points"]


def test_points_of_other_settings_say_nothing_more() -> None:
    assert all("varied" not in entry for entry in compared("vas", {"method.beta": 1.0}, {"method.beta": 2.0}))


def test_points_that_would_be_called_the_same_are_told_apart() -> None:
    entries = compared("vas", *({"method.beta": b, "value.td_lambda": t} for b in (1.0, 2.0) for t in (0.5, 1.0)))
    assert [(e["settings"]["beta"], e["varied"]) for e in entries] == [
        (1.0, {"value.td_lambda": 0.5}),
        (1.0, {"value.td_lambda": 1.0}),
        (2.0, {"value.td_lambda": 0.5}),
        (2.0, {"value.td_lambda": 1.0}),
    ]


def test_a_point_that_leaves_a_key_alone_has_its_value_all_the_same() -> None:
    entries = compared("vas", {}, {"method.outside": "drop"}, {"method.beta": 9.0})
    assert [e["varied"] for e in entries] == [{"outside": "mean"}, {"outside": "drop"}, {"outside": "mean"}]


def test_what_changes_nothing_is_one_point() -> None:
    assert len(compared("base", {"value.td_lambda": 0.5}, {"value.td_lambda": 1.0})) == 1


def test_keys_that_end_alike_keep_their_points_apart() -> None:
    """`value.seed=1` and `dpo.seed=1` are not both `seed=1`: each score is an input of its own."""
    seeds = [("value", "1"), ("dpo", "1"), ("dpo", "2")]
    assert labels([{"method": "vas"}, *({"method": "ivg", f"{of}.seed": seed} for of, seed in seeds)]) == [
        "vas",
        "ivg value.seed=1",
        "ivg dpo.seed=1",
        "ivg seed=2",
    ]
    assert len(compared("ivg", {"value.seed": 1}, {"value.seed": 2}, {"dpo.seed": 1}, {"dpo.seed": 2})) == 4
