"""One execution of one stage: what it is handed, what it reports, and what it may not publish."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.stage import Spec, limit_threads, perform

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


def test_nothing_of_the_environment_is_in_a_manifest(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "planted-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "planted-secret")
    assert toy.tilt("run").returncode == 0
    for path in [*(toy.path / "store").rglob("*"), *(toy.path / "runs").rglob("*")]:
        if path.is_file():
            assert b"planted-secret" not in path.read_bytes()


def test_a_manifest_names_versions_and_the_host_and_nothing_else_of_the_environment(toy) -> None:
    toy.tilt("run")
    for path in (toy.path / "store/objects").glob("*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        told = json.dumps({name: value for name, value in manifest.items() if name not in ("preimage", "code")})
        values = {value for name, value in os.environ.items() if len(value) > 12 and name not in ("PWD", "HOSTNAME")}
        assert [value for value in values if value in told] == []


def performed(small, **fields: Any) -> tuple[list[tuple], Spec]:
    """The events of the stage `first`, run in this process."""
    graph = small.graph(goal=["first"], stages={"first": fields})
    (node,) = graph.nodes.values()
    spec = small.attempts(graph).spec(node, 1, 1, {}, set())
    events: list[tuple] = []
    perform(spec, events.append)
    return events, spec


def test_a_stage_reports_its_progress_and_its_figures_and_leaves_a_manifest(small) -> None:
    events, spec = performed(small, seconds=0.1)
    assert events[0] == ("progress", 0, 2.0, "waiting")  # 20 steps a second
    assert events[-1][:2] == ("done", {"letters": 4.0})
    manifest = json.loads((spec.staging / "manifest.json").read_text())
    assert (manifest["key"], manifest["metrics"], list(manifest["files"])) == (
        spec.key,
        {"letters": 4.0},
        ["half.txt", "said.txt"],
    )


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("badly", {"kind": "error", "field": "", "message": "RuntimeError: the voice broke", "retryable": False}),
        (
            "input",
            {"kind": "input", "field": "word", "message": "well is not a word; give another", "retryable": False},
        ),
        ("disk", {"kind": "disk", "field": "", "message": "[Errno 28] No space left on device", "retryable": False}),
    ],
)
def test_a_failure_is_told_by_its_kind_and_leaves_no_manifest(small, how: str, told: dict) -> None:
    events, spec = performed(small, how=how)
    assert events == [("failed", told)]
    assert not (spec.staging / "manifest.json").exists()


def test_a_name_that_the_class_does_not_take_is_an_input_at_fault(small) -> None:
    ((_, told),) = performed(small, volume=3)[0]
    assert (told["kind"], told["field"]) == ("input", "volume")


def test_a_spec_is_the_same_in_another_process(small) -> None:
    graph = small.graph()
    for node in graph.nodes.values():
        spec = small.attempts(graph).spec(node, 1, 1, {}, set())
        back = Spec.load(spec.save())
        assert json.dumps(dataclasses.asdict(back), default=str) == json.dumps(dataclasses.asdict(spec), default=str)


@pytest.mark.parametrize(("how", "code"), [("well", 0), ("badly", 1), ("input", 2)])
def test_as_a_command_the_exit_code_is_the_outcome(small, toy, how: str, code: int) -> None:
    graph = small.graph(goal=["first"], stages={"first": {"how": how}})
    (node,) = graph.nodes.values()
    spec = small.attempts(graph).spec(node, 1, 1, {}, set())
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.stage", str(spec.save())],
        cwd=toy.path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "toy")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr


def test_threads_of_libraries_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    try:
        limit_threads(1)
        assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("1", 1)
    finally:
        torch.set_num_threads(before)
