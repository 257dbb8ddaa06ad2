"""`tilt` as a user meets it: a toy project of three stages, run in processes of its own."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def test_a_sweep_runs_every_stage_once_and_then_nothing(toy) -> None:
    first = toy.tilt("run", "-m", "voice.word=hello,goodbye")
    assert first.returncode == 0, first.stderr
    assert sorted(toy.executed()) == ["goodbye", "hello", "well"]  # `well` is shared, `alone` is not reached
    assert (toy.path / "runs/latest/comparison.csv").read_text() == "WELL HELLO\nWELL GOODBYE\n"
    assert "WELL GOODBYE" in first.stdout
    again = toy.tilt("run", "-m", "voice.word=hello,goodbye", "name=renamed")
    assert again.returncode == 0
    assert toy.executed() == []
    assert again.stdout.count("reused") == 4


def test_one_changed_point_recomputes_that_point_only(toy) -> None:
    toy.tilt("run", "-m", "voice.word=hello,goodbye")
    toy.executed()
    toy.tilt("run", "-m", "voice.word=hello,salut")
    assert toy.executed() == ["salut"]


@pytest.mark.parametrize("executor", ["local", "inprocess"])
def test_a_failure_takes_its_descendants_and_leaves_its_siblings(toy, executor: str) -> None:
    broken = toy.tilt("run", "first.how=badly", "goal=[compare,apart]", f"executor={executor}")
    assert broken.returncode == 1
    assert "RuntimeError: the voice broke" in broken.stdout
    assert "alone" in toy.executed()
    assert not list((toy.path / "store/staging").iterdir())
    log = next((toy.path / "store/failures").glob("*/log.txt"), None)
    if executor == "local":
        assert log is not None
        assert "the voice broke" in log.read_text()
    fixed = toy.tilt("run", "goal=[compare,apart]", f"executor={executor}")
    assert fixed.returncode == 0
    assert "alone" not in toy.executed()


def test_a_worker_that_is_killed_is_a_failure_with_its_signal(toy) -> None:
    outcome = toy.tilt("run", "voice.how=killed")
    assert outcome.returncode == 1
    assert "SIGKILL" in outcome.stdout


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["first.how=input"], "first.word: well is not a word; give another"),
        (["first.how=disk"], "store: no space or permission while 'first' was writing"),
        (["+stages.first.volume=3"], "stages.first.volume: Say has no such field"),
    ],
)
def test_bad_input_that_only_a_stage_can_see_names_the_users_key(toy, overrides: list[str], line: str) -> None:
    outcome = toy.tilt("run", *overrides)
    assert outcome.returncode == 2
    assert line in outcome.stdout
    assert "Traceback" not in outcome.stdout + outcome.stderr


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


def states(toy, *arguments: str) -> dict[str, tuple[str, str]]:
    planned = json.loads(toy.tilt("plan", "--json", *arguments).stdout)
    return {stage["stage"]: (stage["state"], stage["reason"]) for stage in planned["stages"]}


def test_plan_names_the_field_the_input_and_the_function(toy, edit: Callable[[Path, str, str], None]) -> None:
    assert states(toy)["first"] == ("run", "never ran")
    toy.tilt("run")
    assert {state for state, _ in states(toy).values()} == {"reuse"}
    changed = states(toy, "first.word=oh")
    assert changed["first"] == ("stale", "word: well → oh")
    assert changed["second"] == ("stale", "input first changed")
    edit(toy.path / "toy_helper.py", "return word", "# louder\n    return word")
    assert {state for state, _ in states(toy).values()} == {"reuse"}  # a comment is not code
    edit(toy.path / "toy_helper.py", "word.upper()", "word.upper() + '!'")
    assert states(toy)["first"] == ("stale", "code: toy_helper.shout")


def test_plan_counts_what_merging_saves(toy) -> None:
    planned = json.loads(toy.tilt("plan", "--json", "-m", "voice.word=a,b,c").stdout)
    # 3 points × (first, second) and one comparison; `first` is shared
    assert (planned["points"], planned["naive"], planned["unique"]) == (3, 7, 5)


def test_status_tells_done_failed_and_missing(toy) -> None:
    toy.tilt("run", "voice.how=badly")
    rows = {line.split()[0]: line for line in toy.tilt("status", "voice.how=badly").stdout.splitlines()[1:]}
    assert "done" in rows["first"]
    assert "failed" in rows["second"]
    assert "the voice broke" in rows["second"]
    assert "missing" in rows["compare"]


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


def test_status_of_a_run_that_was_killed_is_not_running(toy) -> None:
    with subprocess.Popen(
        toy.command("run", "voice.seconds=60"), cwd=toy.path, env=toy.environment(), start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while "hello" not in (toy.witness.read_text() if toy.witness.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "running" in toy.tilt("status", "voice.seconds=60").stdout
        os.kill(process.pid, signal.SIGKILL)
    assert list((toy.path / "store/leases").iterdir())
    assert "running" not in toy.tilt("status", "voice.seconds=60").stdout


def test_an_object_that_lost_a_file_is_never_used(toy) -> None:
    toy.tilt("run")
    toy.executed()
    said = next(
        path for path in (toy.path / "store/objects").glob("*/*/payload/said.txt") if "HELLO" in path.read_text()
    )
    os.chmod(said.parent, 0o755)
    said.unlink()
    assert states(toy)["second"] == ("stale", "its object is damaged")
    toy.tilt("run")
    assert toy.executed() == ["hello"]


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


def test_a_changed_default_of_a_file_is_named_by_its_field(toy, edit: Callable[[Path, str, str], None]) -> None:
    toy.tilt("run")
    edit(toy.path / "conf/toy.yaml", "first: {word: well, how: well}", "first: {word: oh, how: well}")
    assert states(toy)["first"] == ("stale", "word: well → oh")


def test_a_flipped_byte_is_found_and_its_object_not_used_again(toy) -> None:
    toy.tilt("run")
    toy.executed()
    said = next(
        path for path in (toy.path / "store/objects").glob("*/*/payload/said.txt") if "HELLO" in path.read_text()
    )
    os.chmod(said, 0o644)
    said.write_text(said.read_text().replace("HELLO", "HELLP"))
    assert toy.tilt("verify", "--quick").returncode == 0  # the size is what it was
    found = toy.tilt("verify")
    assert found.returncode == 1
    assert "said.txt has other bytes than were published; moved to" in found.stdout
    assert states(toy)["second"][0] != "reuse"
    toy.tilt("run")
    assert toy.executed() == ["hello"]


def test_one_table_tells_what_failed_why_where_its_log_is_and_what_it_cost(toy) -> None:
    outcome = toy.tilt("run", "-m", "voice.word=a,b", "voice.how=well,badly")
    table = outcome.stdout.split("2 failed, 1 skipped")[1].splitlines()
    assert table[1].split("  ")[1:] == ["second (word=a how=badly)", "RuntimeError: the voice broke"]
    log = table[2].strip().removeprefix("log: ")
    assert "RuntimeError: the voice broke" in Path(log).read_text()
    assert table[3].strip() == "skipped after it: 1"
    toy.executed()
    toy.tilt("run", "-m", "voice.word=a,b", "voice.how=well")  # mended: only what is missing
    assert toy.executed() == []


def test_status_of_a_sweep_is_a_matrix_of_stages_and_points(toy) -> None:
    toy.tilt("run", "-m", "voice.word=a,b", "voice.how=well,badly")
    lines = toy.tilt("status", "-m", "voice.word=a,b", "voice.how=well,badly").stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:4]}
    # points: 1 (a, well), 2 (a, badly), 3 (b, well), 4 (b, badly)
    assert rows == {"first": ["●"] * 4, "second": ["●", "✗", "●", "✗"], "compare": ["○"] * 4}
    assert "2  word=a how=badly" in lines
