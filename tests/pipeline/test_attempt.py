"""What a process is told of its stage, and what becomes of a failure."""

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["first.how=input"], "first.word: well is not a word; give another"),
        (["first.how=disk"], "store: no space or permission while 'first' was writing"),
        (["+stages.first.volume=3"], "stages.first.volume: Say has no such field"),
    ],
)
def test_bad_input_that_only_a_stage_can_see_names_the_users_key(toy, overrides: list[str], line: str) -> None:
    outcome = toy.tilt("run", *overrides)
    assert outcome.returncode == 2
    assert line in outcome.stdout
    assert "Traceback" not in outcome.stdout + outcome.stderr


def named(graph, name: str):
    return next(node for node in graph.nodes.values() if node.name == name)


def test_a_process_is_told_where_its_inputs_lie_and_what_is_upstream(small) -> None:
    graph = small.graph()
    first, second = named(graph, "first"), named(graph, "second")
    spec = small.attempts(graph).spec(second, 4, 2, {first.key: 1.5}, {first.key})
    assert spec.config["heard"] == str(small.store.payload(first.key))
    assert spec.lineage == [
        {"stage": "first", "key": first.key, "inputs": [], "seconds": 1.5, "reused": True, "label": "one"}
    ]
    assert (spec.threads, spec.attempt, spec.tracking.project) == (4, 2, "toy")
    assert spec.staging.is_dir()
    assert {"toy_stages", "toy_helper"} <= spec.sources.keys()


def test_cores_are_shared_by_the_processes_of_a_stage(small) -> None:
    graph = small.graph(stages={"first": {"resources": {"processes": 2, "timeout": 9}}})
    spec = small.attempts(graph).spec(named(graph, "first"), 5, 1, {}, set())
    assert (spec.threads, spec.processes, spec.timeout) == (2, 2, 9)  # 5 // 2
    assert small.attempts(graph).spec(named(graph, "first"), 1, 1, {}, set()).threads == 1


def failed(small, kind: str, **more: Any):
    """The failure of the second stage, and the folder that was its attempt's, with a log and a checkpoint in it."""
    graph = small.graph()
    attempts = small.attempts(graph)
    spec = attempts.spec(named(graph, "second"), 1, 1, {}, set())
    (spec.staging / "log.txt").write_text("what it printed")
    (spec.staging / "checkpoints").mkdir()
    (spec.staging / "checkpoints/step").write_text("1")
    told = {"kind": kind, "field": "word", "message": "no"} | more
    return attempts.failure(named(graph, "second"), spec, told), spec.staging


@pytest.mark.parametrize(
    ("kind", "more", "message", "kept"),
    [
        ("error", {}, "no", False),
        ("error", {"retryable": True}, "no", True),
        ("input", {}, "word: no", False),  # the key that sets stages.second.word
        ("timeout", {}, "word: no", True),
    ],
)
def test_a_failure_names_the_users_key_and_keeps_what_another_attempt_can_use(
    small, kind: str, more: dict, message: str, kept: bool
) -> None:
    failure, staging = failed(small, kind, **more)
    assert (failure.kind, failure.message) == (kind, message)
    assert failure.log is not None
    assert failure.log.read_text() == "what it printed"
    assert (staging / "checkpoints/step").exists() is kept
    assert not (staging / "payload").exists()


def test_a_full_disk_is_told_with_the_way_out(small) -> None:
    failure, _ = failed(small, "disk", message="No space left")
    assert failure.message.startswith(f"store: no space or permission while 'second' was writing to {small.store.root}")


def test_an_errors_own_exit_code_is_kept(small) -> None:
    assert failed(small, "error", exit_code=3)[0].exit_code == 3
