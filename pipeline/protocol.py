"""What the runner asks of a stage, and of the errors that a stage raises. All of it is here.

A stage is a dataclass that `_target_` names in the configuration; its fields are the other keys beside `_target_`. The
only base class it needs is `object`: what counts is which methods it has. Three keys are for the runner alone and are
no fields: `resources` (`pipeline.resources.Resources`), `code` (`track`, `pin` or `ignore`; `pipeline.graph.CODE`) and
`version` (any value; it enters the key, so that raising it makes the stage run again).

While planning, no stage is imported: whether a class has `run_shard` or `estimate` is read from its source, so both
have to stand in the body of the class itself. A class with `estimate` is the exception: it is imported and asked.

A stage writes into the folder that it is given, and nowhere else. Of what it writes the runner knows three names, all
optional: `summary.txt` is printed where the stage is a goal of the run; of the stage `compare`, all files are copied
to the run's folder, and `report.html` and `comparison.csv` are named at the end.
"""

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


class Stage(Protocol):
    """What every stage has. With a field `runtime` (see `Handles`) it is also handed what belongs to one execution."""

    def run(self, out: Path) -> None:
        """Does the work and writes the result into the folder `out`, which exists and is empty.

        Any exception is a failure of the stage; those that say more are `FieldAtFault`, `Passing` and `Ending`.
        """
        ...


class Sharded(Stage, Protocol):
    """A stage that can be computed in parts (`resources.shards`), each cached and tried again by itself."""

    def run_shard(self, out: Path, index: int, count: int) -> None:
        """Writes part `index` (from 0) of `count` into `out`."""
        ...

    def merge(self, parts: list[Path], out: Path) -> None:
        """Writes into `out` what `run` would have written, from the folders of all parts in order."""
        ...


class Estimated(Stage, Protocol):
    """A stage that pays for something and can tell beforehand what.

    For this its class is made while planning: its module must be light to import. A mapping with a `_target_` inside a
    field stays a mapping then, and a reference may be the path of a folder that is not there yet.
    """

    def estimate(self) -> Mapping[str, Any]:
        """`dollars` (None: cannot be told), `calls`, `tokens`, `note` (one line); see `pipeline.expense.Expense`."""
        ...


class Handles(Protocol):
    """What a stage's field `runtime` is handed before it runs. The field never enters the key."""

    rank: int
    """Which of the processes that run the stage together this one is, from 0. Only process 0 writes and reports."""
    world: int
    """How many they are."""
    progress: Callable[..., None]
    """`progress(done, total, note="")`: how far the stage is."""
    metrics: Callable[[Mapping[str, float]], None]
    """Figures by name, kept with the result. `dollars` is taken for what the result cost."""
    table: Callable[[str, Sequence[str], Sequence[Sequence[Any]]], None]
    """`table(name, columns, rows)`: a table for tracking."""
    loggers: Callable[[], list[Any]]
    """Lightning's loggers, empty without tracking."""
    lineage: Sequence[Mapping[str, Any]]
    """The stages upstream, one mapping each: `stage`, `key`, `inputs`, `seconds`, `reused`, `label`."""
    checkpoints: Path | None
    """A folder that outlives a failed attempt: the next attempt at the stage finds it as it was left."""
    requests: Path | None
    """A folder that all stages over one store share, for paid answers."""


@runtime_checkable
class FieldAtFault(Protocol):
    """An error that blames a field. The user reads `<key that sets the field>: <problem>`; the exit code is 2."""

    field: str
    """Dotted path below the stage's configuration, such as `guide.k`."""
    problem: str
    """One line: what is wrong, and the way out."""


@runtime_checkable
class Passing(Protocol):
    """An error that says whether another attempt may go well; only then is one made (`resources.retries`)."""

    retryable: bool


@runtime_checkable
class Ending(Protocol):
    """An error with an exit code of its own for the whole run."""

    exit_code: int


_PASSING = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH}
"""Errors of file systems and networks that another attempt may not meet."""


def handles(stage: Stage) -> Handles | None:
    """The stage's `runtime`, None where it has none."""
    return getattr(stage, "runtime", None)


def field_at_fault(error: BaseException) -> tuple[str, str] | None:
    """(field, problem) of an error that blames a field, else None."""
    if isinstance(error, FieldAtFault) and isinstance(error.field, str):
        return error.field, str(error.problem)
    return None


def retryable(error: BaseException) -> bool:
    """What the error says of itself; where it says nothing, whether it is one of a connection, a timeout or a disk."""
    if isinstance(error, Passing):
        return bool(error.retryable)
    return isinstance(error, ConnectionError | TimeoutError) or getattr(error, "errno", None) in _PASSING


def exit_code(error: BaseException) -> int | None:
    """The exit code that an error has of its own, else None."""
    return error.exit_code if isinstance(error, Ending) and isinstance(error.exit_code, int) else None
