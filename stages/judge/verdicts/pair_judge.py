"""What a judge of pairs has to offer, and what it is handed. A judge of your own is a class with these two parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from stages.judge.verdicts.pairs import Pair
from stages.records import Verdict


@dataclass
class Session:
    """What a judge is handed besides its configuration."""

    requests: Path
    """Folder of the recorded answers."""
    progress: Callable[[int, int, str], None] = lambda done, total, note: None
    """`progress(done, total, note)`"""
    figures: dict[str, float] = field(default_factory=dict)
    """The judge writes here how many requests it sent, found recorded and lost."""


@runtime_checkable
class PairJudge(Protocol):
    """Decides which response of a pair is better."""

    name: str
    """In tables and in `Verdict.judge`."""

    def decide(self, pairs: Sequence[Pair], order: str, session: Session) -> list[Verdict]:
        """One verdict for each pair and order, in the order of the pairs. `order`: `both`, `seeded` or `as_is`."""
        ...
