"""What a stage asks of the machine: the `resources` mapping of its configuration. Never part of its key.

stages.value.resources: {cores: 4, memory: 8, timeout: 3600, retries: 2}
stages.rollouts.resources.shards: 8
"""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import nearest
from pipeline.errors import UsageError

GIB = 2**30


@dataclass(frozen=True)
class Resources:
    cores: int | None = None
    """Cores that must be free for it to start, at most as many as there are; None: a fair share of the free ones."""
    memory: float = 0.0
    """GiB set aside while it runs; 0: nothing is reserved."""
    timeout: float | None = None
    """Seconds after which it is ended and has failed."""
    retries: int | None = None
    """Attempts after a failure that may pass (a killed process, a dropped connection); None: executor.retries."""
    processes: int = 1
    """Processes that run the stage together (DDP): the runner starts them, each as `python -m pipeline.stage`."""
    shards: int = 1
    """Parts that are computed, cached and retried one by one, then merged."""

    @classmethod
    def of(cls, config: Mapping[str, Any], key_of: Callable[[str], str]) -> "Resources":
        """From a stage's configuration; `key_of` gives the user's key of a field. Raises UsageError for a bad one."""
        given = config.get("resources") or {}
        if not isinstance(given, Mapping):
            raise UsageError(f"{key_of('resources')}: {given} is not a mapping, such as {{cores: 2, memory: 8}}")
        names = [field.name for field in dataclasses.fields(cls)]
        asked: dict[str, Any] = {}
        for name, value in given.items():
            key = key_of(f"resources.{name}")
            if name not in names:
                raise UsageError(f"{key}: there is no such resource{nearest(name, names)} ({', '.join(names)})")
            if value is None:
                continue
            whole = name not in ("memory", "timeout")
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            least = 0 if name in ("memory", "retries") else 1 if whole else 0.001
            if not number or value < least or (whole and value != int(value)):
                raise UsageError(f"{key}: {value} is not {_SPELT[name]}")
            asked[name] = int(value) if whole else value
        return cls(**asked)


_SPELT = {
    "cores": "a positive number of cores",
    "memory": "a number of GiB, 0 or more",
    "timeout": "a positive number of seconds",
    "retries": "a number of attempts, 0 or more",
    "processes": "a positive number of processes",
    "shards": "a positive number of shards",
}


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> float:
    """GiB this process may use: the machine's, or its control group's limit where that is lower."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            sizes.append(int(text))
    return min(sizes) / GIB
