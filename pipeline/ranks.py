"""The processes that run one stage: one, or as many as its `resources.processes` says, which then work together (DDP).

`started` starts several of them on this machine, each as `python -m pipeline.stage SPEC.json`, and tells each by its
environment which one it is (RANK of WORLD_SIZE, LOCAL_RANK) and where they meet (MASTER_ADDR, MASTER_PORT). torch and
Lightning read these names too; a cluster's launcher can set them in the same way.

Process 0 counts as the stage: its progress and its metrics are reported, what it writes is published. A process that
dies ends them all, and the failure names it. Each stays until all are done, so that no connection is torn down while
another process is still in its last exchange.
"""

import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.stage import Spec
from pipeline.workers import Started, Worker, end, terminate

LOCAL = "127.0.0.1"
PATIENCE = 120.0
"""Seconds that the other processes may take to finish after process 0 has."""
GRACE = 5.0
"""Seconds in which a failure may turn out to be the consequence of another process's death."""

Event = tuple[Any, ...]


def started(spec: Spec) -> list[Worker]:
    """`spec.processes` processes on this machine. Cores are shared: each has `spec.threads` threads."""
    path = spec.save()
    shared = {
        "OMP_NUM_THREADS": str(spec.threads),
        "WORLD_SIZE": str(spec.processes),
        "MASTER_ADDR": LOCAL,
        "MASTER_PORT": str(_free_port()),
    }
    ranks = [str(rank) for rank in range(spec.processes)]
    return [Started(path, _log(spec, int(rank)), shared | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ranks]


class Ranks:
    """The running processes of one stage, as one to whoever waits for it."""

    def __init__(self, spec: Spec, workers: Sequence[Worker]) -> None:
        self._spec, self._workers = spec, workers
        self._last: dict[int, Event] = {}
        """By rank: `done`, `failed`, or `("died", exit code)` where the process ended without a word."""
        self._waits_since: float | None = None
        """When the first process failed, or process 0 was done."""

    @property
    def connections(self) -> list[Any]:
        """Something arrives at one of them when there may be news."""
        return [worker.connection for worker in self._workers]

    def events(self) -> list[Event]:
        """What has happened since the last call. The stage's own end, `done` or `failed`, is the last of all."""
        found: list[Event] = []
        for rank, worker in enumerate(self._workers):
            for event in _arrived(worker):
                if event[0] != "progress":
                    self._last[rank] = event
                elif rank == 0:
                    found.append(event)
        return found + self._ended()

    def part(self, seconds: float) -> None:
        """Lets all processes leave and waits until they have, at most so long."""
        for worker in self._workers:
            worker.connection.close()
        until = time.monotonic() + seconds
        for worker in self._workers:
            worker.exit_code(max(0.0, until - time.monotonic()))

    def terminate(self) -> None:
        """SIGTERM to all that still run."""
        for worker in self._workers:
            terminate(worker)

    def end(self, seconds: float = 0.0) -> None:
        """Ends all processes and what they started; those that live on after `seconds` are killed."""
        self.terminate()
        until = time.monotonic() + seconds
        for worker in self._workers:
            end(worker, max(0.0, until - time.monotonic()))

    def _ended(self) -> list[Event]:
        """The end of the stage, once it is known."""
        died = {rank: event[1] for rank, event in self._last.items() if event[0] == "died"}
        if died:
            return [("failed", self._death(died))]
        failed = {rank: event[1] for rank, event in self._last.items() if event[0] == "failed"}
        if failed:
            rank = min(failed, key=lambda rank: failed[rank]["kind"] == "error")  # the first, one with a cause before
            told = failed[rank]
            if told["kind"] == "error" and len(self._last) < len(self._workers) and self._waited() < GRACE:
                return []  # its connection to a process that has died may have failed, and we may not know that yet
            self._keep_logs()
            named = told["kind"] != "error" or rank == 0
            return [("failed", told if named else told | {"message": f"{self._name(rank)}: {told['message']}"})]
        if 0 not in self._last:
            return []
        if len(self._last) == len(self._workers):
            return [self._last[0]]
        if self._waited() > PATIENCE:
            message = f"a process was not finished within {PATIENCE:.0f} s; it stood at {self._whereabouts()}"
            self._keep_logs()
            return [("failed", {"kind": "error", "field": "", "message": message, "retryable": False})]
        return []

    def _waited(self) -> float:
        self._waits_since = self._waits_since or time.monotonic()
        return time.monotonic() - self._waits_since

    def _death(self, died: dict[int, int | None]) -> dict[str, Any]:
        """The failure of a stage of which a process ended without a word; killed ones may be tried again."""
        rank, code = next(iter(died.items()))
        how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        short = "was memory short?" if code == -signal.SIGKILL else ""
        if len(self._workers) == 1:
            message = f"its process ended without a word ({how})" + (f"; {short}" if short else "")
        else:
            lines = _log(self._spec, rank).read_text(errors="replace").strip().splitlines()
            message = f"{self._name(rank)} ended by {how}" + (f" ({short})" if short else "")
            message += f": {lines[-1]}" if lines else ""
            self._keep_logs()
        retryable = any(code is not None and code < 0 for code in died.values())
        return {"kind": "error", "field": "", "message": message, "retryable": retryable}

    def _name(self, rank: int) -> str:
        return f"process {rank} of {len(self._workers)}"

    def _whereabouts(self) -> str:
        """Where those stand that are not done, from the traces that they write when asked (`pipeline.stage.main`)."""
        late = [rank for rank in range(len(self._workers)) if rank not in self._last]
        for rank in late:
            os.kill(self._workers[rank].pid, signal.SIGUSR1)
        time.sleep(1)
        traces = [_log(self._spec, rank).read_text(errors="replace") for rank in late]
        return " | ".join(trace[trace.rfind("Current thread") :].strip().replace("\n", ";") for trace in traces)

    def _keep_logs(self) -> None:
        """Puts what the other processes printed behind the log of process 0, which is the stage's."""
        with _log(self._spec, 0).open("a") as log:
            for rank in range(1, len(self._workers)):
                if text := _log(self._spec, rank).read_text(errors="replace").strip():
                    log.write(f"--- {self._name(rank)} ---\n{text}\n")


def _arrived(worker: Worker) -> list[Event]:
    """What a process has sent, up to its last word; `("died", exit code)` where it is gone."""
    events: list[Event] = []
    try:
        while worker.connection.poll():
            events.append(worker.connection.recv())
            if events[-1][0] in ("done", "failed"):
                break
    except (EOFError, OSError):
        events.append(("died", worker.exit_code(5.0)))
    return events


def _log(spec: Spec, rank: int) -> Path:
    return spec.staging / (f"rank{rank}.txt" if rank else "log.txt")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((LOCAL, 0))
        return int(free.getsockname()[1])
