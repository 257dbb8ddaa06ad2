"""A stage run by the runner, in as many processes as a test wants."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.executors import Local
from pipeline.stage import Spec


@pytest.fixture(scope="session")
def rank_process() -> Callable[[Path, int], int | None]:
    """`rank_process(folder, rank)`: the process that runs a stage of `folder` as this rank, where there is one."""

    def find(folder: Path, rank: int) -> int | None:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text()
                told = Path(f"/proc/{pid}/environ").read_text()
            except OSError:
                continue
            if "pipeline.stage" in command and str(folder) in command and f"RANK={rank}" in told.split("\0"):
                return int(pid)
        return None

    return find


@pytest.fixture(scope="session")
def in_processes() -> Callable[..., tuple[Any, ...]]:
    """`in_processes(config, staging, processes=2, progressed=…)` returns the last event of the stage, whose payload is
    then in `staging`; `progressed(done)` is called with its progress."""

    def run(
        config: dict[str, Any], staging: Path, processes: int = 2, progressed: Callable[[int], None] = lambda done: None
    ) -> tuple[Any, ...]:
        (staging / "payload").mkdir(parents=True)
        plain = {"preimage": {}, "code": {}, "inputs": {}, "commit": ""}
        executor = Local(cores=2)
        executor.start(Spec("key", "stage", config, staging, 1, processes=processes, **plain))
        try:
            while True:
                for _, event in executor.events(0.2):
                    if event[0] != "progress":
                        return event
                    progressed(event[1])
        finally:
            executor.stop()

    return run
