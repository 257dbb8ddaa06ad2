"""Stages small enough to see through, for the runner's tests."""

import os
import subprocess
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
    checkpoints: Any = None


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


@dataclass
class Passing:
    """Fails with a dropped connection until `failures` lines stand in `witness`; then writes how often it tried."""

    witness: str
    failures: int = 1
    error: str = "connection"
    runtime: Handles = field(default_factory=Handles)

    def run(self, out: Path) -> None:
        with open(self.witness, "a") as stream:
            stream.write("try\n")
        tries = len(Path(self.witness).read_text().split())
        if tries <= self.failures:
            raise {"connection": ConnectionError, "own": RuntimeError}[self.error]("the line dropped")
        (out / "said.txt").write_text(f"{tries}\n")


@dataclass
class Climb:
    """Counts to `steps`, a checkpoint a step; is killed at step `fall` where it did not start from a checkpoint."""

    witness: str
    steps: int = 4
    fall: int = 0
    runtime: Handles = field(default_factory=Handles)

    def run(self, out: Path) -> None:
        checkpoint = self.runtime.checkpoints / "step.txt"
        start = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for step in range(start, self.steps):
            if step == self.fall and not start:
                os.kill(os.getpid(), 9)
            with open(self.witness, "a") as stream:
                stream.write(f"{step}\n")
            checkpoint.write_text(str(step + 1))
        (out / "said.txt").write_text(f"{self.steps}\n")


@dataclass
class Together:
    """Holds the machine for a while and writes when; starts `children` that would outlive it."""

    witness: str
    word: str
    seconds: float = 0.5
    children: int = 0
    runtime: Handles = field(default_factory=Handles)

    def run(self, out: Path) -> None:
        for _ in range(self.children):
            child = subprocess.Popen(["sleep", "600"])
            with open(self.witness, "a") as stream:
                stream.write(f"{child.pid}\n")
        began = time.time()
        time.sleep(self.seconds)
        (out / "said.txt").write_text(f"{self.word} {began} {time.time()} {os.environ['OMP_NUM_THREADS']}\n")


@dataclass
class Squares:
    """The squares of 0 … n−1, one a line; can be computed in shards. Shard `bad` fails."""

    n: int
    witness: str = ""
    bad: int = -1
    seconds: float = 0.0
    runtime: Handles = field(default_factory=Handles)

    def run(self, out: Path) -> None:
        self._write(out, range(self.n), "whole")

    def run_shard(self, out: Path, index: int, count: int) -> None:
        if index == self.bad and not Path(f"{self.witness}.mended").exists():
            raise RuntimeError("this shard fell")
        self._write(out, range(self.n * index // count, self.n * (index + 1) // count), f"shard{index}")

    def merge(self, parts: list[Path], out: Path) -> None:
        (out / "said.txt").write_text("".join((part / "said.txt").read_text() for part in parts))

    def _write(self, out: Path, numbers: range, word: str) -> None:
        time.sleep(self.seconds)
        if self.witness:
            with open(self.witness, "a") as stream:
                stream.write(f"{word}\n")
        (out / "said.txt").write_text("".join(f"{number**2}\n" for number in numbers))


@dataclass
class Paid:
    """A stage that pays for what it asks."""

    questions: int
    price: float | None

    def run(self, out: Path) -> None:
        (out / "said.txt").write_text("answered\n")

    def estimate(self) -> dict[str, Any]:
        dollars = None if self.price is None else self.questions * self.price
        return {"dollars": dollars, "calls": self.questions, "tokens": 0, "note": ""}
