"""Runs a graph. A stage runs at most once; what is published is reused; a failure skips only what needs the stage."""

import errno
import time
from dataclasses import dataclass, field
from typing import Any

from filelock import SoftFileLease, Timeout

from pipeline.attempt import Attempts, Failure
from pipeline.code import targets
from pipeline.errors import UsageError
from pipeline.executors import Executor, InProcess
from pipeline.graph import Graph, Node
from pipeline.progress import View
from pipeline.stage import Spec
from pipeline.store import Store
from pipeline.tracking import Tracking

POLL = 0.2
LONGEST_PAUSE = 30.0


@dataclass
class Outcome:
    """What became of every node, by key."""

    reused: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """{key: key of the stage upstream that failed}."""

    @property
    def exit_code(self) -> int:
        """0: all done. An error's own code, where one has it. 2: only bad input or a full disk. 1: anything else."""
        if not self.failed:
            return 0
        if own := [failure.exit_code for failure in self.failed.values() if failure.exit_code is not None]:
            return own[0]
        return 2 if all(failure.kind in ("input", "disk") for failure in self.failed.values()) else 1


@dataclass
class _Work:
    """A node that is running, and the cores and GiB that are set aside for it."""

    spec: Spec
    cores: int
    memory: float


class Execution:
    """One pass over a graph with one executor. `run` returns the outcome; KeyboardInterrupt ends all workers first."""

    def __init__(
        self, graph: Graph, store: Store, executor: Executor, view: View, tracking: Tracking, retries: int = 0
    ) -> None:
        """Raises UsageError for a stage that asks for more memory than the executor has."""
        self.graph, self.store, self.executor, self.view, self.retries = graph, store, executor, view, retries
        for node in graph.nodes.values():
            if node.resources.memory > executor.memory:
                raise UsageError(
                    f"{node.config_key('resources.memory')}: {node.resources.memory:g} GiB is more than there is "
                    f"({executor.memory:.1f} GiB); ask for less or set executor.memory"
                )
        self.outcome = Outcome()
        self.attempts = Attempts(graph, store, tracking)
        self._seconds: dict[str, float] = {}
        self._pending = dict(graph.nodes)
        self._missing = {key: set(node.needs) for key, node in graph.nodes.items()}
        """By node, the keys that it still waits for."""
        self._needed_by: dict[str, list[str]] = {key: [] for key in graph.nodes}
        for key, node in graph.nodes.items():
            for upstream in dict.fromkeys(node.needs):
                self._needed_by[upstream].append(key)
        self._ready = {key: None for key, missing in self._missing.items() if not missing}
        self._below = {key: 0 for key in graph.nodes}
        """By node, the length of the longest chain of stages that waits for it."""
        for key in reversed(graph.nodes):
            for upstream in graph.nodes[key].needs:
                self._below[upstream] = max(self._below[upstream], self._below[key] + 1)
        self._leases: dict[str, SoftFileLease] = {}
        self._waiting: dict[str, SoftFileLease] = {}
        self._running: dict[str, _Work] = {}
        self._tried: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._polled = 0.0
        if isinstance(executor, InProcess):
            executor.listener = self._handle

    def run(self) -> Outcome:
        """Raises UsageError where the store cannot be written and something would have to be."""
        try:
            while self._pending or self._running:
                self._start_ready()
                idle = not (self._running or self._waiting or self._not_before)
                for event in self.executor.events(0.0 if idle else POLL):
                    self._handle(event)
        except BaseException:
            self.executor.stop()
            raise
        finally:
            for work in self._running.values():
                self.store.abandon(work.spec.staging)
            for lease in self._leases.values():
                lease.release(force=True)
        return self.outcome

    def _start_ready(self) -> None:
        now = time.monotonic()
        if poll := now - self._polled > POLL:
            self._polled = now
        looked_at = [key for key in self._ready if poll or key not in self._waiting]
        startable = []
        while looked_at:
            key = looked_at.pop(0)
            if self._published(key):
                looked_at += self._finish(key)
            else:
                startable.append(key)
        startable = [key for key in startable if self._not_before.get(key, 0.0) <= now]
        startable.sort(key=lambda key: self._below[key], reverse=True)  # the longest chain goes first
        for position, key in enumerate(startable):
            cores = self.executor.cores - sum(work.cores for work in self._running.values())
            memory = self.executor.memory - sum(work.memory for work in self._running.values())
            if cores < 1:
                return
            wanted = self.graph.nodes[key].resources
            # a stage that is alone gets all cores; several that can run side by side get an equal share each
            share = max(1, cores // (len(startable) - position))
            share = min(wanted.cores, self.executor.cores) if wanted.cores else max(share, wanted.processes)
            share = min(share, self.executor.cores)
            # a stage that does not fit waits, and smaller ones behind it may start first
            if share <= cores and (wanted.memory <= memory or not self._running):
                self._begin(key, share)

    def _published(self, key: str) -> bool:
        node = self.graph.nodes[key]
        manifest = self.store.find(key) or (self.store.find(node.whole) if node.whole else None)
        if manifest is None:
            return False
        self._seconds[key] = manifest.seconds
        self._waiting.pop(key, None)
        self.outcome.reused.append(key)
        self.view.reused(node)
        return True

    def _finish(self, key: str) -> list[str]:
        """Takes a node that is in the store off the list; returns the keys that became ready by it."""
        self._pending.pop(key, None)
        self._ready.pop(key, None)
        fresh = []
        for other in self._needed_by[key]:
            self._missing[other].discard(key)
            if not self._missing[other] and other in self._pending:
                fresh.append(other)
        self._ready |= dict.fromkeys(fresh)
        return fresh

    def _begin(self, key: str, cores: int) -> None:
        node = self._pending[key]
        lease = self._waiting.get(key) or self.store.lease(key)
        try:
            lease.acquire(timeout=0)
        except Timeout:
            if key not in self._waiting:
                self.view.waiting(node)
                self._waiting[key] = lease
            return
        except OSError as error:
            raise self.store.unwritable(error) from error
        self._waiting.pop(key, None)
        self._not_before.pop(key, None)
        self._leases[key] = lease
        if self.store.find(key):  # another process published it after we looked
            self._release(key)
            return
        if not self._tried:
            self.executor.prepare(self._modules())
        self._tried[key] = self._tried.get(key, 0) + 1
        try:
            spec = self.attempts.spec(node, cores, self._tried[key], self._seconds, set(self.outcome.reused))
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC):
                raise
            raise self.store.unwritable(error) from error
        del self._pending[key]
        del self._ready[key]
        self._running[key] = _Work(spec, cores, node.resources.memory)
        self.view.started(node, spec.threads)
        self.executor.start(spec)

    def _modules(self) -> set[str]:
        """The modules of all classes in the stages that are not published."""
        wanted = [node for key, node in self._pending.items() if not self.store.find(key)]
        return {target.rpartition(".")[0] for node in wanted for target in targets(node.config)}

    def _handle(self, received: tuple[str, tuple[Any, ...]]) -> None:
        key, event = received
        node = self.graph.nodes[key]
        if event[0] == "progress":
            self.view.progressed(node, *event[1:])
            return
        spec = self._running[key].spec
        if event[0] == "done":
            try:
                self.store.publish(spec.staging, key)
            except OSError as error:
                event = ("failed", {"kind": "disk", "field": "", "message": str(error)})
            else:
                self._seconds[key] = event[2]
                self.outcome.done.append(key)
                self.view.finished(node, event[1], event[2])
                self._finish(key)
        del self._running[key]
        if event[0] == "failed":
            self._fail(node, spec, event[1])
        self._release(key)

    def _fail(self, node: Node, spec: Spec, told: dict[str, Any]) -> None:
        failure = self.attempts.failure(node, spec, told)
        allowed = self.retries if node.resources.retries is None else node.resources.retries
        if self.store.find(node.key):  # our lease had passed to another attempt, and that one was faster
            self.outcome.reused.append(node.key)
            self.view.overtaken(node)
            self._finish(node.key)
            return
        if told.get("retryable") and self._tried[node.key] <= allowed:
            pause = min(LONGEST_PAUSE, 2.0 ** (self._tried[node.key] - 1))
            self._pending[node.key] = node
            self._ready[node.key] = None
            self._not_before[node.key] = time.monotonic() + pause
            self.view.retried(node, failure.message, pause)
            return
        self.outcome.failed[node.key] = failure
        self.view.failed(node)
        below = list(self._needed_by[node.key])
        while below:
            if (key := below.pop(0)) in self._pending:
                self.outcome.skipped[key] = node.key
                self.view.skipped(self._pending.pop(key), node)
                below += self._needed_by[key]

    def _release(self, key: str) -> None:
        self._leases.pop(key).release(force=True)
