"""One process of a stage: forked from a server that has the libraries loaded, or started as `python -m pipeline.stage`.

Both are leaders of a process group of their own, so that whatever the stage starts (loaders, servers) ends with it.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from pipeline.stage import Spec, perform


class Worker(Protocol):
    """A process that runs a stage: its events arrive at `connection`, and it may leave when that is closed."""

    connection: Connection
    pid: int

    def exit_code(self, seconds: float) -> int | None:
        """The exit code (negative: the signal) once it has ended, None where it has not within `seconds`."""
        ...


class Forked:
    """A child of the fork server of `context`: starts in milliseconds."""

    def __init__(self, spec: Spec, context: Any) -> None:
        self.connection, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=child, args=(spec, theirs), name=spec.name)
        self._process.start()
        theirs.close()
        self.pid: int = self._process.pid

    def exit_code(self, seconds: float) -> int | None:
        self._process.join(seconds)
        return self._process.exitcode


class Started:
    """A process that starts from nothing: it reads its stage from `path`, a saved Spec, and which rank it is from
    `environment`. What it prints goes to `log`."""

    def __init__(self, path: Path, log: Path, environment: Mapping[str, str]) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        modules = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *filter(None, sys.path)])
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.stage", str(path), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": modules, **environment},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def exit_code(self, seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None


def terminate(worker: Worker) -> None:
    """SIGTERM, where it still runs."""
    if worker.exit_code(0.0) is None:
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGTERM)


def end(worker: Worker, seconds: float = 0.0) -> None:
    """Ends a worker and all that it started: SIGTERM, and SIGKILL to what lives on after `seconds`."""
    terminate(worker)
    worker.exit_code(seconds)
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.exit_code(5.0)
    worker.connection.close()


def child(spec: Spec, channel: Any) -> None:
    """Entry point of a forked worker: output goes to the stage's log, the process ends with its supervisor."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides; it ends its workers by SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    parent = multiprocessing.parent_process()

    def follow_parent() -> None:
        assert parent is not None
        parent.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=follow_parent, daemon=True).start()
    log = os.open(spec.staging / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    perform(spec, channel.send)
    sys.stdout.flush()
