"""Runs a graph: every stage at most once, what is published reused, what fails takes only its descendants with it."""

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import SoftFileLease, Timeout

from pipeline.executors import Executor, InProcess
from pipeline.graph import Graph, Node, with_paths
from pipeline.progress import View
from pipeline.stage import Spec, lineage
from pipeline.store import Store
from pipeline.tracking import Tracking

POLL = 0.2


@dataclass
class Failure:
    node: Node
    kind: str
    message: str
    """One line; names the configuration key where a field is at fault."""
    log: Path | None
    exit_code: int | None = None
    """Of the error's own, where it has one (a budget that was reached)."""


@dataclass
class Outcome:
    """What became of every node, by key."""

    reused: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Key of the failed ancestor by key."""

    @property
    def exit_code(self) -> int:
        """0 all done, 2 where every failure is the configuration's or the disk's, an error's own code, 1 otherwise."""
        if not self.failed:
            return 0
        if own := [failure.exit_code for failure in self.failed.values() if failure.exit_code is not None]:
            return own[0]
        return 2 if all(failure.kind in ("input", "disk") for failure in self.failed.values()) else 1


class Execution:
    """One pass over a graph with one executor. `run` returns the outcome; KeyboardInterrupt ends all workers first."""

    def __init__(self, graph: Graph, store: Store, executor: Executor, view: View, tracking: Tracking) -> None:
        self.graph, self.store, self.executor, self.view, self.tracking = graph, store, executor, view, tracking
        self.outcome = Outcome()
        self._seconds: dict[str, float] = {}
        self._pending = dict(graph.nodes)
        self._leases: dict[str, SoftFileLease] = {}
        self._waiting: dict[str, SoftFileLease] = {}
        self._running: dict[str, Spec] = {}
        self._threads: dict[str, int] = {}
        self._polled = 0.0
        self._below = {key: 0 for key in graph.nodes}
        """Length of the longest chain of stages that waits for a stage."""
        for key in reversed(graph.nodes):
            for upstream in graph.nodes[key].inputs.values():
                self._below[upstream] = max(self._below[upstream], self._below[key] + 1)
        self._commit = _commit()
        if isinstance(executor, InProcess):
            executor.listener = self._handle

    def run(self) -> Outcome:
        try:
            while self._pending or self._running:
                self._start_ready()
                for event in self.executor.events(POLL if self._running or self._waiting else 0.0):
                    self._handle(event)
        except BaseException:
            self.executor.stop()
            raise
        finally:
            for spec in self._running.values():
                self.store.discard(spec.staging)
            for lease in self._leases.values():
                lease.release(force=True)
        return self.outcome

    def _start_ready(self) -> None:
        finished = {*self.outcome.reused, *self.outcome.done}
        ready = [key for key, node in self._pending.items() if finished.issuperset(node.inputs.values())]
        poll = time.monotonic() - self._polled > POLL
        startable = []
        for key in ready:
            if key in self._waiting and not poll:
                continue
            if manifest := self.store.find(key):
                self._waiting.pop(key, None)
                self._seconds[key] = manifest.seconds
                self.outcome.reused.append(key)
                self.view.reused(self._pending.pop(key))
                continue
            startable.append(key)
        if poll:
            self._polled = time.monotonic()
        startable.sort(key=self._depth_below, reverse=True)  # what most stages wait for goes first
        free = self.executor.cores - sum(self._threads.values())
        for position, key in enumerate(startable):
            if free < 1:
                return
            # all cores to a stage that is alone, an equal share to each of several that can run side by side
            threads = max(1, free // (len(startable) - position))
            wanted = self._pending[key].config.get("resources") or {}
            threads = min(threads, int(wanted.get("cores") or threads))
            if self._begin(key, threads):
                free -= threads

    def _depth_below(self, key: str) -> int:
        return self._below[key]

    def _begin(self, key: str, threads: int) -> bool:
        node = self._pending[key]
        lease = self._waiting.get(key) or self.store.lease(key)
        try:
            lease.acquire(timeout=0)
        except Timeout:
            if key not in self._waiting:
                self.view.waiting(node)
                self._waiting[key] = lease
            return False
        self._waiting.pop(key, None)
        self._leases[key] = lease
        if self.store.find(key):  # published between our look and our lease
            self._release(key)
            return False
        del self._pending[key]
        ancestors = [self.graph.nodes[k] for k in self.graph.ancestors(key)]
        spec = Spec(
            key=key,
            name=node.name,
            config=with_paths(node.config, self.store.payload),
            staging=self.store.stage(key),
            threads=threads,
            preimage=node.preimage,
            code=node.code,
            inputs={name: upstream for name, upstream in node.inputs.items()},
            commit=self._commit,
            lineage=lineage(ancestors, self._seconds, set(self.outcome.reused)),
            tracking=self.tracking,
        )
        self._running[key], self._threads[key] = spec, threads
        self.view.started(node, threads)
        self.executor.start(spec)
        return True

    def _handle(self, received: tuple[str, tuple[Any, ...]]) -> None:
        key, event = received
        node = self.graph.nodes[key]
        if event[0] == "progress":
            self.view.progressed(node, *event[1:])
            return
        spec = self._running[key]
        if event[0] == "done":
            try:
                self.store.publish(spec.staging, key)
            except OSError as error:
                event = ("failed", {"kind": "disk", "field": "", "message": str(error)})
            else:
                self._seconds[key] = event[2]
                self.outcome.done.append(key)
                self.view.finished(node, event[1], event[2])
        if event[0] == "failed":
            self._fail(node, spec, event[1])
        del self._running[key], self._threads[key]
        self._release(key)

    def _fail(self, node: Node, spec: Spec, failure: dict[str, Any]) -> None:
        message = failure["message"]
        if failure["kind"] == "input":
            message = f"{node.config_key(failure['field'])}: {message}"
        elif failure["kind"] == "disk":
            message = (
                f"store: no space or permission while '{node.name}' was writing to {self.store.root} ({message}); "
                "free some space or set store=/another/disk, then run again: what is finished is kept"
            )
        try:
            log = self.store.fail(spec.staging, node.key, failure | {"stage": node.name})
        except OSError:  # a full disk cannot even take the log
            log = None
            self.store.discard(spec.staging)
        self.outcome.failed[node.key] = Failure(node, failure["kind"], message, log, failure.get("exit_code"))
        self.view.failed(node)
        for key in [k for k in self._pending if node.key in self.graph.ancestors(k)]:
            self.outcome.skipped[key] = node.key
            self._waiting.pop(key, None)
            self.view.skipped(self._pending.pop(key), node)

    def _release(self, key: str) -> None:
        self._leases.pop(key).release(force=True)


def _commit() -> str:
    """The git commit of the working directory, empty outside of a checkout."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
