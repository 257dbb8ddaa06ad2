"""One process a stage."""

import multiprocessing
import time

from pipeline.workers import Forked, end


def forked(small, **fields) -> Forked:
    graph = small.graph(goal=["first"], stages={"first": fields})
    (node,) = graph.nodes.values()
    spec = small.attempts(graph).spec(node, 1, 1, {}, set())
    return Forked(spec, multiprocessing.get_context("forkserver"))


def test_a_forked_worker_sends_its_events_and_exits(small) -> None:
    worker = forked(small)
    assert worker.connection.poll(60)
    assert worker.connection.recv()[0] == "done"
    assert worker.exit_code(10.0) == 0


def test_what_a_worker_prints_is_in_the_log_of_its_stage(small) -> None:
    worker = forked(small, how="badly")
    assert worker.connection.poll(60)
    assert worker.connection.recv()[1]["message"] == "RuntimeError: the voice broke"
    assert worker.exit_code(10.0) == 0  # the failure was told; the process itself did well
    (log,) = small.store.root.glob("staging/*/log.txt")
    assert "RuntimeError: the voice broke" in log.read_text()


def test_a_worker_that_still_runs_is_ended(small) -> None:
    worker = forked(small, seconds=60)
    assert worker.connection.poll(60)  # its progress
    assert worker.exit_code(0.0) is None
    began = time.monotonic()
    end(worker, 5.0)
    assert time.monotonic() - began < 10
    assert worker.exit_code(0.0) is not None
