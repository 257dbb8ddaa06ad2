"""`${stage_where:NAME,USER,NEEDED}`: a stage that the comparison refers to in some of its points."""

from typing import Any

from omegaconf import OmegaConf

from pipeline.config import register_resolvers
from pipeline.graph import Graph
from pipeline.points import Point

SAY = "stages.runtime.Runtime"
"""Any class: nothing runs here."""


def graph_of(*, user: Any) -> Graph:
    """A comparison that refers to `measure` where `user` needs `source`; `between` needs it."""
    register_resolvers()
    stages = {
        "source": {"_target_": SAY, "rows": 1},
        "between": {"_target_": SAY, "rows": "${stage:source}"},
        "user": user,
        "measure": {"_target_": SAY, "rows": 2},
    }
    points = {"used": "${stage:user}", "measured": "${stage_where:measure,user,source}"}
    compare = {"_target_": SAY, "points": points}
    return Graph([Point.of(OmegaConf.create({"goal": ["compare"], "stages": stages, "compare": compare}))])


def reached(graph: Graph) -> set[str]:
    (goal,) = graph.goals
    (entry,) = graph.nodes[goal].config["points"]
    names = {node.name for node in graph.nodes.values()}
    assert (entry["measured"] is not None) == ("measure" in names)
    return names


def test_it_is_there_where_the_user_needs_the_stage_directly_or_through_another() -> None:
    for upstream in ("source", "between"):
        graph = graph_of(user={"_target_": SAY, "rows": f"${{stage:{upstream}}}"})
        assert {"measure", "source"} <= reached(graph)
        (goal,) = graph.goals
        assert "measure of " in graph.nodes[goal].inputs  # by its own name, for the point whose label is empty


def test_it_is_null_where_the_user_needs_something_else_or_is_no_stage() -> None:
    assert reached(graph_of(user={"_target_": SAY})) == {"user", "compare"}
    assert reached(graph_of(user={"slot": None})) == {"compare"}
