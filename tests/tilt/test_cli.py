"""`tilt` as a user meets it: bad usage is one line, Hydra's habits hold, and an interrupted run goes on."""

import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["voice.wrod=x"], "tilt: voice.wrod: there is no such key; did you mean 'word'?"),
        (["executor=lcoal"], "tilt: executor: there is no 'lcoal'; did you mean 'local'?"),
        (["executor.cores=0"], "tilt: executor.cores: 0 is not a positive number of cores"),
        (["executor.cores=many"], "tilt: executor.cores: Value 'many' of type 'str' could not be converted to Integer"),
        (["executor.retries=null"], "tilt: executor.retries: null is no value for it"),
        (["voice.word=???"], "tilt: voice.word: has no value yet; give one with voice.word=…"),
        (["goal=[secnod]"], "tilt: goal: there is no stage 'secnod' in stages; did you mean 'second'?"),
        (["stages.first._target_=toy_stages_.Say"], "tilt: stages.first._target_: toy_stages_.Say: no module"),
        (["stages.first.word=${file:/no/such/file}"], "tilt: stages.first.word: /no/such/file does not exist"),
        (["stages.first.word=${stage:second}"], "tilt: stages.second: refers to itself (compare → second → first"),
        (["-m", "sweep=nothing"], "tilt: sweep: there is no 'nothing'"),
        (["-m", "voice.word=range(3,3)"], "tilt: voice.word: there is nothing to choose from in voice.word=range(3,3)"),
        (["goal=null"], "tilt: goal: null is not a stage's name or a list of names, such as [compare]"),
        (["goal=[[first]]"], 'tilt: goal: [["first"]] is not a stage\'s name or a list of names, such as [compare]'),
        (["sweep=demo"], "tilt: sweep: demo is a sweep, and this is one point; add -m"),
        (["stages.first=5"], "tilt: stages.first: 5 is not a stage's fields with its class as _target_"),
        (["goal=first"], ""),
        (["first.word="], ""),
    ],
)
def test_bad_usage_is_one_line_with_the_key(toy, arguments: list[str], line: str) -> None:
    outcome = toy.tilt("plan", *arguments)
    if line:
        assert outcome.returncode == 2
        assert outcome.stderr.startswith(line), outcome.stderr
        assert outcome.stderr.count("\n") == 1
    else:
        assert outcome.returncode == 0  # an empty word is a word, a single goal a list of one


def test_an_unknown_verb_suggests_the_nearest(toy) -> None:
    outcome = toy.tilt("rnu")
    assert outcome.returncode == 2
    assert "did you mean 'run'?" in outcome.stderr


@pytest.fixture
def heeded():
    """SIGINT reaches what is started here, where these tests themselves run behind a shell's `&`, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_workers_and_goes_on_where_it_was(toy, sent: signal.Signals) -> None:
    with subprocess.Popen(
        toy.command("run", "voice.seconds=60"), cwd=toy.path, env=toy.environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while "hello" not in (toy.witness.read_text() if toy.witness.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(sent)
        assert process.wait(timeout=10) == 130
        assert process.stderr is not None
        assert "goes on from here" in process.stderr.read()
    toy.executed()
    assert not list((toy.path / "store/staging").iterdir())
    toy.tilt("run", "voice.seconds=0.1")
    assert toy.executed() == ["hello"]  # `first` was finished before


def test_hydra_habits_hold(toy) -> None:
    assert "word: hello" in toy.tilt("run", "--cfg", "job").stdout
    assert "Powered by Hydra" in toy.tilt("run", "--help").stdout
    assert toy.tilt("run", "~stages.apart").returncode == 0
    assert toy.tilt("run", "+note=x").returncode == 0
    assert toy.tilt("run", "--multirun", "voice.word=a,b", "hydra.sweep.dir=else/where").returncode == 0
    assert (toy.path / "else/where/comparison.csv").read_text() == "WELL A\nWELL B\n"


def test_a_file_that_is_not_yaml_is_named_with_its_line(toy, edit: Callable[[Path, str, str], None]) -> None:
    edit(toy.path / "conf/toy.yaml", "name: toy\n", "name: toy\n<<<<<<< ours\n")
    done = toy.tilt("run")
    assert done.returncode == 2
    assert re.match(r"tilt: toy.yaml, line 1\d: [^\n]+\n$", done.stderr), done.stderr
