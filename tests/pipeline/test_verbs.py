"""`tilt run`: what it says at its end, and what a point is worth."""

from pathlib import Path

import pytest

from pipeline.errors import PointFailed, UsageError
from pipeline.verbs import worth


def test_one_table_tells_what_failed_why_where_its_log_is_and_what_it_cost(toy) -> None:
    outcome = toy.tilt("run", "-m", "voice.word=a,b", "voice.how=well,badly")
    table = outcome.stdout.split("2 failed, 1 skipped")[1].splitlines()
    assert table[1].split("  ")[1:] == ["second (word=a how=badly)", "RuntimeError: the voice broke"]
    log = table[2].strip().removeprefix("log: ")
    assert "RuntimeError: the voice broke" in Path(log).read_text()
    assert table[3].strip() == "skipped after it: 1"
    toy.executed()
    toy.tilt("run", "-m", "voice.word=a,b", "voice.how=well")  # mended: only what is missing
    assert toy.executed() == []


def test_a_point_is_worth_the_figures_that_its_objective_names(small) -> None:
    graph = small.graph()
    outcome = small.run(graph)
    (point,) = graph.points
    assert worth(point, small.store, outcome, "second.letters") == 2.0  # "hi"
    assert worth(point, small.store, outcome, ["first.letters", "second.letters"]) == [4.0, 2.0]
    assert worth(point, small.store, outcome, None) is None
    assert worth(point, small.store, outcome, "elsewhere.letters") is None  # a stage that this point has not
    with pytest.raises(UsageError, match=r"^objective: first reports no 'leters'; did you mean 'letters'\?$"):
        worth(point, small.store, outcome, "first.leters")


def test_a_point_whose_stage_or_what_it_needs_failed_is_worth_an_error(small) -> None:
    graph = small.graph(goal=["second"], stages={"first": {"how": "badly"}})
    outcome = small.run(graph)
    found = worth(graph.points[0], small.store, outcome, "second.letters")
    assert isinstance(found, PointFailed)
    assert (str(found), found.exit_code) == ("one: RuntimeError: the voice broke", 1)
