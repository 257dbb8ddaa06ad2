"""What a stage is handed besides its configuration: never part of its key, never able to change its result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _silent(done: int, total: int, note: str = "") -> None:
    pass


def _no_metrics(values: Mapping[str, float]) -> None:
    pass


def _no_table(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    pass


def _no_loggers() -> list[Any]:
    return []


@dataclass
class Runtime:
    """Devices and handles of one execution. The defaults let any stage run by hand: `Prompts(...).run(Path("out"))`."""

    device: str = "cpu"
    """Where this stage's models live, as torch spells it: `cpu`, `cuda`, `cuda:1`; it has to compute in float64."""
    rows: int = 64
    """Sequences that go through a model together; results do not depend on it."""
    rank: int = 0
    """Which of the processes that run this stage together this one is; only rank 0 writes and reports."""
    world: int = 1
    """How many they are."""
    progress: Callable[..., None] = field(default=_silent, repr=False)
    """`progress(done, total, note)`: how far the stage is; `note` carries the metric that matters."""
    metrics: Callable[[Mapping[str, float]], None] = field(default=_no_metrics, repr=False)
    """Final figures of the stage, by name: shown at its end, kept in its manifest, sent to tracking."""
    table: Callable[[str, Sequence[str], Sequence[Sequence[Any]]], None] = field(default=_no_table, repr=False)
    """`table(name, columns, rows)`: a table for tracking."""
    loggers: Callable[[], list[Any]] = field(default=_no_loggers, repr=False)
    """Lightning loggers for training curves; empty without tracking."""
    checkpoints: Path | None = None
    """A folder that survives a crash of this stage and is handed to its next attempt."""
    requests: Path | None = None
    """A folder of paid answers that all judge stages of a store share; nothing recorded there is bought again."""
    lineage: Sequence[Mapping[str, Any]] = ()
    """The graph upstream, one mapping a stage: `stage`, `key`, `inputs`, `seconds`, `reused`."""
