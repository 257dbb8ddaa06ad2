"""The processes of a training on several devices (DDP), started by the stage itself.

The first process runs the stage as always. `together` starts the others (`rank_process.py`): each builds the same stage
from its configuration, reads the same data, trains its share of every batch and leaves before anything is written.
(Lightning would start the others by the command line of this process, which may be a whole sweep's.)

A process that dies ends them all: the others' collectives fail, the first process names the dead one, and since the
others' standard input ends with the first process, none is left behind. The others stay until the first process has
all it needs and closes that input: nobody's connections are torn down under another's last collective.
"""

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment

from stages.description import described
from stages.errors import BadInput
from stages.runtime import Runtime

LOCAL = "127.0.0.1"
READY, FINISHED = "ready", "finished"
PATIENCE = 120.0
"""Seconds that the other processes may take to end their training after the first one has."""


class RankDied(RuntimeError):
    """A process of the group ended before its work was done."""

    retryable = False
    """Whether a signal ended it: another attempt, which goes on from the last checkpoint, may not meet that."""


@dataclasses.dataclass
class Group:
    """The processes that train together; one of them where there is nothing to share."""

    size: int = 1
    rank: int = 0
    port: int = 0
    others: list["subprocess.Popen[bytes]"] = dataclasses.field(default_factory=list)
    errors: list[Path] = dataclasses.field(default_factory=list)
    """Where the other processes' output goes."""
    signal: Any = None
    """Where one of the other processes says that it is ready, then that it is finished."""
    finished: bool = False
    """Whether one of the other processes may leave."""

    def backend(self, kind: str) -> str:
        """Of the collectives between devices of a kind."""
        return torch.distributed.get_default_backend_for_device(kind)

    @contextlib.contextmanager
    def training(self, runtime: Runtime) -> Iterator[None]:
        """Inside, all processes of the group have arrived; behind it, they are free of each other."""
        if self.size == 1:
            yield
            return
        self._meet(READY, runtime)
        try:
            yield
            self._meet(FINISHED, runtime, PATIENCE)
        finally:
            if torch.distributed.is_initialized() and not self.rank:
                torch.distributed.destroy_process_group()

    def _meet(self, word: str, runtime: Runtime, patience: float = float("inf")) -> None:
        """The others say the word; the first process waits for it. One that dies is an error instead of a long wait."""
        if self.rank:
            self.finished = word == FINISHED
            print(word, file=self.signal, flush=True)
            return
        until = time.monotonic() + patience
        with selectors.DefaultSelector() as waiting:
            for process in self.others:
                assert process.stdout is not None
                waiting.register(process.stdout, selectors.EVENT_READ)
            while waiting.get_map():
                for key, _ in waiting.select(0.5):
                    if not key.fileobj.readline():  # type: ignore[union-attr]
                        raise RankDied(f"a process ended before it was {word}")
                    waiting.unregister(key.fileobj)
                if time.monotonic() > until:
                    raise RankDied(
                        f"a process was not {word} within {patience:.0f} s; it stood at {self._whereabouts()}"
                    )
                runtime.progress(0, 1, "waiting for the other processes")

    def _whereabouts(self) -> str:
        """Where the other processes stand, from the traces that they write when asked."""
        for process in self.others:
            process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        traces = [path.read_text(errors="replace") for path in self.errors]
        return " | ".join(trace[trace.rfind("Current thread") :].strip().replace("\n", ";") for trace in traces)

    def dead(self) -> RankDied | None:
        """Which process died and its last line; None where none did."""
        for rank, (process, errors) in enumerate(zip(self.others, self.errors, strict=True), 1):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.returncode:
                code = process.returncode
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                lines = errors.read_text(errors="replace").strip().splitlines()
                last = f": {lines[-1]}" if lines else ""
                died = RankDied(f"process {rank} of {self.size} ended by {how}{last}")
                died.retryable = any((process.returncode or 0) < 0 for process in self.others)
                return died
        return None


class RankEnvironment(ClusterEnvironment):
    """Tells Lightning who is in the group; it starts no process of its own."""

    def __init__(self, group: Group) -> None:
        self.group = group

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return LOCAL

    @property
    def main_port(self) -> int:
        return self.group.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.group.size

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.group.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.group.rank

    def node_rank(self) -> int:
        return 0


def group_of(runtime: Runtime) -> Group:
    return getattr(runtime, "group", None) or Group()


@contextlib.contextmanager
def together(stage: Any) -> Iterator[Group]:
    """The group that trains this stage: started here by its first process, where its runtime wants several devices.

    Only rank 0 may write or report. Raises RankDied where another process died.
    """
    runtime = stage.runtime
    wanted = getattr(runtime, "devices", 1)
    if wanted <= 1 or runtime.group is not None:
        yield group_of(runtime)
        return
    runtime.check()
    threads = torch.get_num_threads()
    each = max(1, threads // wanted)
    with tempfile.TemporaryDirectory(prefix="ranks") as folder:
        group = Group(size=wanted, port=_free_port())
        try:
            torch.set_num_threads(each)
            for rank in range(1, wanted):
                _start(stage, group, rank, each, Path(folder))
            runtime.group = group
            yield group
            for process in group.others:
                assert process.stdin is not None
                process.stdin.close()  # they may leave
            if dead := group.dead():
                raise dead
        except BadInput:
            raise
        except Exception as error:
            if dead := group.dead():
                raise dead from error
            raise
        finally:
            runtime.group = None
            torch.set_num_threads(threads)
            for process in group.others:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()


def _start(stage: Any, group: Group, rank: int, threads: int, folder: Path) -> None:
    spec = folder / f"{rank}.json"
    spec.write_text(json.dumps({"stage": described(stage), "size": group.size, "rank": rank, "port": group.port}))
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    group.errors.append(folder / f"{rank}.log")
    with group.errors[-1].open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.learn.loop.rank_process", str(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            env=environment,
        )
    group.others.append(process)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((LOCAL, 0))
        return int(free.getsockname()[1])
