"""`${file:}`: a local file counts by its content; what was edited under a run is not published under the old key."""

import json
import os
from pathlib import Path

import pytest

from pipeline.keys import changed_files, file_digest, file_stamp

MODULE = """
import dataclasses, pathlib

@dataclasses.dataclass
class Read:
    table: str
    after: str = ""
    spoil: bool = False

    def run(self, out):
        path = pathlib.Path(self.table)
        if self.spoil:
            path.write_text("other\\n")
        (out / "said.txt").write_text(path.read_text())

@dataclasses.dataclass
class Meddle:
    path: str

    def run(self, out):
        pathlib.Path(self.path).write_text("other\\n")
        (out / "said.txt").write_text("done")
"""


@pytest.fixture
def table(toy) -> Path:
    (toy.path / "readers.py").write_text(MODULE)
    path = toy.path / "table.csv"
    path.write_text("first\n")
    return path


def published(toy) -> list[str]:
    """What stages that read the table have published."""
    found = []
    for manifest in (toy.path / "store/objects").glob("*/*/manifest.json"):
        if json.loads(manifest.read_text())["stage"] == "reader":
            found.append((manifest.parent / "payload/said.txt").read_text())
    return found


READER = ["goal=[reader]", "+stages.reader={_target_: readers.Read, table: '${file:table.csv}'}"]


def test_a_file_that_is_edited_between_plan_and_start_is_not_published_under_the_old_key(toy, table: Path) -> None:
    meddled = [*READER, f"+stages.meddle={{_target_: readers.Meddle, path: '{table}'}}"]
    meddled += ["+stages.reader.after=${stage:meddle}"]
    outcome = toy.tilt("run", *meddled)
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert f"{table} was edited after this run was planned; run again" in outcome.stdout
    assert "Traceback" not in outcome.stdout + outcome.stderr
    assert published(toy) == []
    assert toy.tilt("run", *READER).returncode == 0  # planned anew, with what stands there now
    assert published(toy) == ["other\n"]


def test_a_file_that_is_edited_while_a_stage_reads_it_is_not_published_either(toy, table: Path) -> None:
    outcome = toy.tilt("run", *READER, "+stages.reader.spoil=true")
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert f"{table} was edited after this run was planned; run again" in outcome.stdout
    assert published(toy) == []


def seen(path: Path) -> dict[str, tuple[str, str]]:
    return {str(path): (file_stamp(path), file_digest(path))}


def test_a_touched_file_is_not_an_edited_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("first\n")
    before = seen(path)
    os.utime(path, (1, 1))
    assert changed_files(before) == []
    path.write_text("other\n")  # the same size
    assert changed_files(before) == [str(path)]
    path.unlink()
    assert changed_files(before) == [str(path)]


def test_a_folder_is_edited_where_a_file_below_it_is_edited_added_or_renamed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("1")
    before = seen(tmp_path / "model")
    assert changed_files(before) == []
    (tmp_path / "model/notes").write_text("")
    assert changed_files(before) == [str(tmp_path / "model")]
    (tmp_path / "model/notes").unlink()
    assert changed_files(before) == []
    (tmp_path / "model/weights").rename(tmp_path / "model/weight")
    assert changed_files(before) == [str(tmp_path / "model")]
