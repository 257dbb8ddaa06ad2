"""What an edit of the code runs anew: the stages that use what was edited, and those behind them, and no others."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.code import closure

ROOT = Path(__file__).parents[1]
ROOMS = ("conf", "hydra_plugins", "pipeline", "stages", "sweeps", "tilt")
SHARED = {"sft", "proxy", "gold", "rollouts", "labels", "value", "dpo", "ppo"}
"""Stages that many points share, and that take the longest."""


def test_the_code_behind_rollouts_names_nothing_of_decoding() -> None:
    code = closure(["stages.sample", "stages.engine.causal_lm", "stages.engine.sampling"])
    assert "stages.engine.engine" in code
    assert [module for module in code if module.startswith(("stages.decode", "stages.learn", "stages.judge"))] == []


def plan(project: Path) -> dict[tuple[str, str], str]:
    """Key by (stage, its first point) of the demo's sweep, as `tilt plan` says from a copy of the code."""
    done = subprocess.run(
        [sys.executable, "-m", "tilt", "plan", "-m", "sweep=demo", "--json"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {(stage["stage"], stage["points"][0]): stage["key"] for stage in json.loads(done.stdout)["stages"]}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def planned(project: Path) -> dict[tuple[str, str], str]:
    return plan(project)


IVG = "ivg token_by={} chunk_by={} beams=2 successors=2"


@pytest.mark.parametrize(
    ("file", "points"),
    [
        ("scorers/explicit.py", {IVG.format("implicit", "explicit"), IVG.format("explicit", "explicit")}),
        ("best_of.py", {"bon n=16", "bon n=4"}),
        (
            "guides/implicit_value.py",
            {"eft weight=2", IVG.format("implicit", "explicit"), IVG.format("implicit", "implicit")},
        ),
    ],
    ids=["a scorer", "a search", "a guide"],
)
def test_an_edit_runs_only_the_decodings_that_use_it(
    project: Path, planned: dict[tuple[str, str], str], file: str, points: set[str]
) -> None:
    edited = project / "stages" / "decode" / file
    before = edited.read_text()
    try:
        edited.write_text(before + "\n\nEDITED = True\n")
        after = plan(project)
    finally:
        edited.write_text(before)
    assert after.keys() == planned.keys()
    changed = {at for at, key in after.items() if key != planned[at]}
    assert {point for stage, point in changed if stage == "decode"} == points
    assert {stage for stage, _ in changed} == {"decode", "score", "compare"}
    assert {stage for stage, _ in planned} > SHARED
