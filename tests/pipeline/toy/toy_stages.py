"""Stages small enough to see through, for the runner's tests."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toy_helper import shout


class BadToy(ValueError):
    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field, self.problem = field, problem


@dataclass
class Handles:
    progress: Any = None
    metrics: Any = None
    table: Any = None
    loggers: Any = None
    lineage: Any = ()


@dataclass
class Say:
    """Writes a word, appends a line to `witness` for every execution, and does what `how` asks for."""

    word: str
    witness: str = ""
    how: str = "well"
    heard: Any = None
    seconds: float = 0.0
    runtime: Handles = field(default_factory=Handles)

    def run(self, out: Path) -> None:
        if self.witness:
            with open(self.witness, "a") as stream:
                stream.write(f"{self.word}\n")
        (out / "half.txt").write_text("half")
        for step in range(int(self.seconds * 20)):
            self.runtime.progress(step, self.seconds * 20, "waiting")
            time.sleep(0.05)
        if self.how == "badly":
            raise RuntimeError("the voice broke")
        if self.how == "input":
            raise BadToy("word", f"{self.word} is not a word; give another")
        if self.how == "disk":
            raise OSError(28, "No space left on device")
        if self.how == "killed":
            os.kill(os.getpid(), 9)
        heard = (Path(self.heard) / "said.txt").read_text() if self.heard else ""
        (out / "said.txt").write_text(heard + shout(self.word) + "\n")
        self.runtime.metrics({"letters": len(self.word)})


@dataclass
class Gather:
    points: list[dict[str, Any]]
    runtime: Handles = field(default_factory=Handles)

    def run(self, out: Path) -> None:
        words = [(Path(p["said"]) / "said.txt").read_text().strip().replace("\n", " ") for p in self.points]
        (out / "summary.txt").write_text("\n".join(words) + "\n")
        (out / "comparison.csv").write_text("\n".join(words) + "\n")
