"""Where stages run: processes that are killed, take too long, or have their modules loaded beforehand."""

import time
from pathlib import Path

import pytest

from pipeline.executors import InProcess, Local


def test_a_worker_that_is_killed_is_a_failure_with_its_signal(toy) -> None:
    outcome = toy.tilt("run", "voice.how=killed")
    assert outcome.returncode == 1
    assert "SIGKILL" in outcome.stdout


def test_a_stage_past_its_time_is_ended_with_all_that_it_started(toy) -> None:
    limits = ["+stages.left.resources.timeout=2", "stages.left.seconds=60", "+stages.left.children=1"]
    began = time.monotonic()
    outcome = toy.tilt("run", "goal=[left,apart]", *[f"+{o.lstrip('+')}" for o in limits])
    assert time.monotonic() - began < 40
    assert outcome.returncode == 1
    assert "stages.left.resources.timeout: ran longer than the 2 s it is given" in outcome.stdout
    words = toy.executed()
    assert "alone" in words
    (child,) = [int(word) for word in words if word.isdigit()]
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("packages", "imports"), [("toy_stages", 1), ("", 2), ("elsewhere", 2)])
def test_a_preloaded_package_is_imported_once_for_all_workers(toy, packages: str, imports: int) -> None:
    helper = toy.path / "toy_helper.py"
    counted = "with open(__file__ + '.imports', 'a') as imports:\n    imports.write('.')\n"
    helper.write_text(helper.read_text() + counted)
    outcome = toy.tilt("run", "goal=[left,right]", f"executor.preload=[{packages}]")
    assert outcome.returncode == 0, outcome.stdout
    assert len(Path(f"{helper}.imports").read_text()) == imports


def finished(executor, key: str) -> list:
    """The events of one stage, up to its last."""
    events: list = []
    deadline = time.monotonic() + 60
    while not (events and events[-1][0] in ("done", "failed")):
        assert time.monotonic() < deadline
        events += [event for about, event in executor.events(0.2) if about == key]
    return events


@pytest.mark.parametrize("kind", [InProcess, Local])
def test_a_stage_that_was_started_reports_its_end(small, kind: type) -> None:
    graph = small.graph(goal=["first"])
    (node,) = graph.nodes.values()
    executor = kind(cores=1, memory=1.0)
    executor.prepare(["toy_stages"])
    spec = small.attempts(graph).spec(node, 1, 1, {}, set())
    executor.start(spec)
    last = finished(executor, node.key)[-1]
    assert (last[0], last[1]) == ("done", {"letters": 4.0})  # "well"
    assert (spec.staging / "payload/said.txt").read_text() == "WELL\n"
    assert executor.events(0.0) == []


def test_in_this_process_progress_is_told_while_a_stage_runs(small) -> None:
    graph = small.graph(goal=["first"], stages={"first": {"seconds": 0.1}})
    (node,) = graph.nodes.values()
    executor, heard = InProcess(cores=1, memory=1.0), []
    executor.listener = heard.append
    executor.start(small.attempts(graph).spec(node, 1, 1, {}, set()))
    assert heard[0] == (node.key, ("progress", 0, 2.0, "waiting"))  # 20 steps a second


def test_what_still_runs_is_ended_with_the_executor(small) -> None:
    graph = small.graph(goal=["first"], stages={"first": {"seconds": 60}})
    (node,) = graph.nodes.values()
    executor = Local(cores=1, memory=1.0)
    executor.start(small.attempts(graph).spec(node, 1, 1, {}, set()))
    while not executor.events(0.2):  # it lives
        pass
    began = time.monotonic()
    executor.stop()
    assert time.monotonic() - began < 10
    assert executor.events(0.0) == []
