"""Where stages run: in this process, or in worker processes of this machine.

An executor starts specs and hands back their events; it knows neither graph nor store. (A cluster's executor has the
same three verbs.)
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from pipeline.stage import Spec, child, perform

Event = tuple[str, tuple[Any, ...]]
"""(key, event); events are those of `pipeline.stage.perform`."""


class Executor(Protocol):
    """`cores` in all; `start` must only be called with `spec.threads` of them free."""

    cores: int

    def start(self, spec: Spec) -> None: ...
    def events(self, seconds: float) -> list[Event]: ...
    def stop(self) -> None: ...


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InProcess:
    """Runs every stage here and now, one after the other: for debuggers, and where processes are not wanted."""

    def __init__(self, cores: int | None = None) -> None:
        self.cores = cores or available_cores()
        self._queue: deque[Event] = deque()
        self.listener: Any = None
        """Called with progress while a stage runs, since nobody can poll meanwhile."""

    def start(self, spec: Spec) -> None:
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


class Local:
    """Worker processes forked from a server that has the heavy libraries loaded (importing them costs seconds)."""

    def __init__(self, cores: int | None = None, preload: tuple[str, ...] = ()) -> None:
        self.cores = cores or available_cores()
        # the server must not start with a BLAS or OpenMP pool of its own; each child sets its threads
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._running: dict[str, tuple[BaseProcess, Connection]] = {}

    def start(self, spec: Spec) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=child, args=(spec, theirs), name=spec.name)
        process.start()
        theirs.close()
        self._running[spec.key] = (process, ours)

    def events(self, seconds: float) -> list[Event]:
        if not self._running:
            time.sleep(seconds)
            return []
        wait([connection for _, connection in self._running.values()], timeout=seconds)
        found: list[Event] = []
        for key, (process, connection) in list(self._running.items()):
            final = False
            try:
                while connection.poll():
                    event = connection.recv()
                    final = event[0] in ("done", "failed")
                    found.append((key, event))
                    if final:
                        break
            except (EOFError, OSError):
                process.join()
                found.append((key, ("failed", _died(process.exitcode))))
                final = True
            if final:
                process.join(30)
                if process.is_alive():  # its work is done and reported; something in it will not end
                    process.kill()
                    process.join()
                connection.close()
                del self._running[key]
        return found

    def stop(self) -> None:
        """Ends all workers: SIGTERM, SIGKILL to those that live on after 5 s."""
        processes = [process for process, _ in self._running.values()]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + 5
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._running.clear()


def _died(code: int | None) -> dict[str, Any]:
    name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
    hint = "; was memory short?" if code == -signal.SIGKILL else ""
    return {"kind": "error", "field": "", "message": f"its process ended without a word ({name}){hint}"}
