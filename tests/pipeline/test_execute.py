"""A graph is run: each stage once, what is there reused, and a failure takes no more than what depends on it."""

import threading

import pytest

from pipeline.attempt import Failure
from pipeline.errors import UsageError
from pipeline.execute import Outcome
from pipeline.graph import Node


def test_a_sweep_runs_every_stage_once_and_then_nothing(toy) -> None:
    first = toy.tilt("run", "-m", "voice.word=hello,goodbye")
    assert first.returncode == 0, first.stderr
    assert sorted(toy.executed()) == ["goodbye", "hello", "well"]  # `well` is shared, `alone` is not reached
    assert (toy.path / "runs/latest/comparison.csv").read_text() == "WELL HELLO\nWELL GOODBYE\n"
    assert "WELL GOODBYE" in first.stdout
    again = toy.tilt("run", "-m", "voice.word=hello,goodbye", "name=renamed")
    assert again.returncode == 0
    assert toy.executed() == []
    assert again.stdout.count("reused") == 4


def test_one_changed_point_recomputes_that_point_only(toy) -> None:
    toy.tilt("run", "-m", "voice.word=hello,goodbye")
    toy.executed()
    toy.tilt("run", "-m", "voice.word=hello,salut")
    assert toy.executed() == ["salut"]


@pytest.mark.parametrize("executor", ["local", "inprocess"])
def test_a_failure_takes_its_descendants_and_leaves_its_siblings(toy, executor: str) -> None:
    broken = toy.tilt("run", "first.how=badly", "goal=[compare,apart]", f"executor={executor}")
    assert broken.returncode == 1
    assert "RuntimeError: the voice broke" in broken.stdout
    assert "alone" in toy.executed()
    assert not list((toy.path / "store/staging").iterdir())
    log = next((toy.path / "store/failures").glob("*/log.txt"), None)
    if executor == "local":
        assert log is not None
        assert "the voice broke" in log.read_text()
    fixed = toy.tilt("run", "goal=[compare,apart]", f"executor={executor}")
    assert fixed.returncode == 0
    assert "alone" not in toy.executed()


def said(toy) -> list[str]:
    found = [path.read_text().split() for path in (toy.path / "store/objects").glob("*/*/payload/said.txt")]
    return [word for words in sorted(found) for word in words]


def test_a_dropped_connection_is_tried_again_and_an_error_of_the_stages_own_is_not(toy) -> None:
    outcome = toy.tilt("run", "goal=[passing]")
    assert outcome.returncode == 0, outcome.stdout
    assert "ConnectionError: the line dropped; trying again in 1 s" in outcome.stdout
    assert said(toy) == ["2"]
    toy.executed()
    own = toy.tilt("run", "goal=[passing]", "+stages.passing.error=own")
    assert own.returncode == 1
    assert toy.executed() == ["try"]


def test_the_number_of_further_attempts_is_the_stages_or_else_the_executors(toy) -> None:
    given = ["goal=[passing]", "+stages.passing.failures=2"]
    assert toy.tilt("run", *given).returncode == 1  # executor.retries is 1: two attempts, both of them fail
    assert toy.executed() == ["try", "try"]
    assert toy.tilt("run", *given, "executor.retries=0").returncode == 1
    assert toy.executed() == ["try"]
    assert toy.tilt("run", *given, "executor.retries=0", "+stages.passing.resources.retries=2").returncode == 0


def states(outcome, graph) -> dict[str, str]:
    found = {graph.nodes[key].name: "done" for key in outcome.done}
    found |= {graph.nodes[key].name: "reused" for key in outcome.reused}
    found |= {graph.nodes[key].name: "failed" for key in outcome.failed}
    return found | {graph.nodes[key].name: "skipped" for key in outcome.skipped}


def test_what_is_published_is_reused(small) -> None:
    graph = small.graph()
    outcome = small.run(graph)
    assert states(outcome, graph) == {"first": "done", "second": "done", "apart": "done"}
    assert outcome.exit_code == 0
    again = small.graph(word="ho")
    assert states(small.run(again), again) == {"first": "reused", "second": "done", "apart": "reused"}
    assert not list((small.store.root / "leases").iterdir())


@pytest.mark.parametrize(("how", "code"), [("badly", 1), ("input", 2), ("disk", 2)])
def test_a_failure_skips_what_needs_it_and_nothing_else(small, how: str, code: int) -> None:
    graph = small.graph(stages={"first": {"how": how}})
    outcome = small.run(graph)
    assert states(outcome, graph) == {"first": "failed", "second": "skipped", "apart": "done"}
    assert outcome.exit_code == code
    assert list(outcome.skipped.values()) == list(outcome.failed)


def test_an_errors_own_exit_code_is_the_runs() -> None:
    node = Node("k", "n", "", {}, {}, {}, {}, {}, [])
    outcome = Outcome(
        failed={"a": Failure(node, "error", "", None), "b": Failure(node, "error", "", None, exit_code=3)}
    )
    assert outcome.exit_code == 3


def test_more_memory_than_there_is_is_refused_before_anything_runs(small) -> None:
    with pytest.raises(UsageError, match=r"^stages\.first\.resources\.memory: 9 GiB is more than .*\(8\.0 GiB\)"):
        small.run(small.graph(stages={"first": {"resources": {"memory": 9}}}))
    assert small.view.told == []


def test_the_longest_chain_goes_first(small) -> None:
    small.run(small.graph(goal=["apart", "second"]))
    assert [name for event, name in small.view.told if event == "started"] == ["first", "apart", "second"]


def test_what_another_holder_works_on_is_waited_for(small) -> None:
    graph = small.graph(goal=["apart"])
    (key,) = graph.nodes
    lease = small.store.lease(key)
    lease.acquire()
    threading.Timer(0.6, lease.release).start()
    assert small.run(graph).done == [key]
    assert small.view.told[0] == ("waiting", "apart")
