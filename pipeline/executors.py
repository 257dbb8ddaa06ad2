"""Where stages run: in this process, or in worker processes of this machine.

An executor starts specs and hands back their events; it knows neither graph nor store. (A cluster's executor has the
same three verbs.)
"""

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Protocol

from pipeline.ranks import Ranks, started
from pipeline.resources import available_cores, available_memory
from pipeline.stage import Spec, perform
from pipeline.workers import Forked

Event = tuple[str, tuple[Any, ...]]
"""(key, event); events are those of `pipeline.stage.perform`."""


class Executor(Protocol):
    """`cores` and GiB of `memory` in all. `prepare` is told once, before the first start, which modules the stages that
    may come are made of; `start` must only be called where what the spec needs is free."""

    cores: int
    memory: float

    def prepare(self, modules: Collection[str]) -> None: ...
    def start(self, spec: Spec) -> None: ...
    def events(self, seconds: float) -> list[Event]: ...
    def stop(self) -> None: ...


class InProcess:
    """Runs every stage here and now, one after the other: for debuggers, and where processes are not wanted.

    What it runs cannot be ended from outside: a stage's `timeout` does not count here. A stage that wants several
    `processes` is refused.
    """

    def __init__(self, cores: int | None = None, memory: float | None = None) -> None:
        self.cores = cores or available_cores()
        self.memory = memory or available_memory()
        self._queue: deque[Event] = deque()
        self.listener: Any = None
        """Called with progress while a stage runs, since nobody can poll meanwhile."""

    def prepare(self, modules: Collection[str]) -> None:
        pass

    def start(self, spec: Spec) -> None:
        if spec.processes > 1:
            self._queue.append((spec.key, ("failed", _one_process(spec))))
            return

        def send(event: tuple[Any, ...]) -> None:
            if event[0] == "progress" and self.listener:
                self.listener((spec.key, event))
            else:
                self._queue.append((spec.key, event))

        perform(spec, send)

    def events(self, seconds: float) -> list[Event]:
        if not self._queue:
            time.sleep(seconds)
        found = list(self._queue)
        self._queue.clear()
        return found

    def stop(self) -> None:
        self._queue.clear()


@dataclass
class _Running:
    spec: Spec
    ranks: Ranks
    deadline: float | None


class Local:
    """Worker processes forked from a server that has loaded what the stages are made of (importing it costs seconds).

    Only modules of the packages `preload` are loaded there: anybody else's might do more than define.
    """

    def __init__(self, cores: int | None = None, memory: float | None = None, preload: Collection[str] = ()) -> None:
        self.cores = cores or available_cores()
        self.memory = memory or available_memory()
        # the server must not start with a BLAS or OpenMP pool of its own; each child sets its threads
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._context = multiprocessing.get_context("forkserver")
        self._packages = preload
        self._running: dict[str, _Running] = {}

    def prepare(self, modules: Collection[str]) -> None:
        ours = sorted(module for module in modules if module.partition(".")[0] in self._packages)
        # `__main__` too: every child would otherwise import it anew, 0.3 s each
        self._context.set_forkserver_preload(["__main__", "pipeline.workers", *ours])

    def start(self, spec: Spec) -> None:
        ranks = Ranks(spec, started(spec) if spec.processes > 1 else [Forked(spec, self._context)])
        deadline = time.monotonic() + spec.timeout if spec.timeout else None
        self._running[spec.key] = _Running(spec, ranks, deadline)

    def events(self, seconds: float) -> list[Event]:
        """What arrived, waiting at most `seconds` for the first; a worker past its time is ended."""
        if not self._running:
            time.sleep(seconds)
            return []
        wait([c for running in self._running.values() for c in running.ranks.connections], timeout=seconds)
        found: list[Event] = []
        for key, running in list(self._running.items()):
            events = running.ranks.events()
            if not events and running.deadline and time.monotonic() > running.deadline:
                events = [("failed", _late(running.spec))]
            if events and events[-1][0] == "done":
                running.ranks.part(30.0)
            if events and events[-1][0] in ("done", "failed"):
                running.ranks.end()  # what they may have left running; themselves, where something in one will not end
                del self._running[key]
            found += [(key, event) for event in events]
        return found

    def stop(self) -> None:
        """Ends all workers: SIGTERM, SIGKILL to those that live on after 5 s in all."""
        deadline = time.monotonic() + 5
        for running in self._running.values():
            running.ranks.terminate()
        for running in self._running.values():
            running.ranks.end(max(0.0, deadline - time.monotonic()))
        self._running.clear()


def _one_process(spec: Spec) -> dict[str, Any]:
    problem = f"executor=inprocess runs a stage in one process, not in {spec.processes}; set 1, or executor=local"
    return {"kind": "input", "field": "resources.processes", "message": problem, "retryable": False}


def _late(spec: Spec) -> dict[str, Any]:
    problem = f"ran longer than the {spec.timeout:g} s it is given; give it more, or fewer rows a shard"
    return {"kind": "timeout", "field": "resources.timeout", "message": problem, "retryable": False}
