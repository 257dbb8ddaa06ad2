"""A copy of the toy project in a folder of its own, and `tilt` run in it as a user would."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOY = Path(__file__).parent / "toy"


class Toy:
    """The toy project at `path`; `tilt(...)` runs a command line and returns the completed process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.witness = path / "witness.txt"

    def command(self, verb: str, *arguments: str) -> list[str]:
        flags = ["--config-dir", str(self.path / "conf"), "--config-name", "toy"]
        return [str(Path(sys.executable).with_name("tilt")), verb, *flags, f"witness={self.witness}", *arguments]

    def environment(self) -> dict[str, str]:
        return os.environ | {"COLUMNS": "200"}

    def tilt(self, verb: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(verb, *arguments),
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def executed(self) -> list[str]:
        """Words in the order in which stages were executed since the last call."""
        words = self.witness.read_text().split() if self.witness.exists() else []
        self.witness.unlink(missing_ok=True)
        return words


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    shutil.copytree(TOY, tmp_path / "toy", ignore=shutil.ignore_patterns("__pycache__"))
    return Toy(tmp_path / "toy")


@pytest.fixture
def edit() -> Callable[[Path, str, str], None]:
    def edit(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit
