"""What stages ask of the machine: retries, time, memory, cores, processes; and the checkpoints that survive a death."""

import os

import pytest

from pipeline.resources import Resources


def spans(toy) -> dict[str, tuple[float, float, int]]:
    lines = [path.read_text().split() for path in (toy.path / "store/objects").glob("*/*/payload/said.txt")]
    return {word: (float(began), float(ended), int(threads)) for word, began, ended, threads in lines}


BOTH = ["goal=[left,right]", "executor.cores=2", "+stages.left.seconds=1", "+stages.right.seconds=1"]


def test_stages_that_fit_run_side_by_side_with_an_equal_share_of_the_cores(toy) -> None:
    assert toy.tilt("run", *BOTH).returncode == 0
    left, right = spans(toy)["left"], spans(toy)["right"]
    assert max(left[0], right[0]) < min(left[1], right[1])
    assert (left[2], right[2]) == (1, 1)


@pytest.mark.parametrize(
    "asked",
    [
        ["+executor.memory=8", "+stages.left.resources.memory=5", "+stages.right.resources.memory=5"],
        ["+stages.left.resources.cores=2"],
    ],
)
def test_stages_that_do_not_fit_take_turns(toy, asked: list[str]) -> None:
    asked = [word.replace("+executor", "executor") for word in asked]
    assert toy.tilt("run", *BOTH, *asked).returncode == 0
    left, right = spans(toy)["left"], spans(toy)["right"]
    assert max(left[0], right[0]) >= min(left[1], right[1])


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("+stages.first.resources.core=2", "stages.first.resources.core: there is no such resource; did you mean"),
        ("+stages.first.resources.cores=0", "stages.first.resources.cores: 0 is not a positive number of cores"),
        ("+stages.first.resources.memory=-1", "stages.first.resources.memory: -1 is not a number of GiB, 0 or more"),
        ("+stages.first.resources.retries=1.5", "stages.first.resources.retries: 1.5 is not a number of attempts"),
        ("+stages.first.resources.timeout=soon", "stages.first.resources.timeout: soon is not a positive number"),
        ("+stages.first.resources=4", "stages.first.resources: 4 is not a mapping, such as {cores: 2, memory: 8}"),
        ("+stages.slotted.resources.cores=0", "stages.slotted.resources.cores: 0 is not a positive number of cores"),
        ("+stages.first.resources.shards=2", "stages.first.resources.shards: Say cannot be split; leave it at 1"),
        ("+stages.first.resources.memory=1e6", "stages.first.resources.memory: 1e+06 GiB is more than there is"),
        ("executor.retries=-1", "executor.retries: -1 is not a number of attempts, 0 or more"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(toy, override: str, line: str) -> None:
    outcome = toy.tilt("run", override, "goal=[compare,slotted]")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"tilt: {line}"), outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_whole_numbers_may_be_spelt_with_a_point() -> None:
    asked = Resources.of({"resources": {"cores": 2.0, "shards": 3.0, "memory": 1.5}}, str)
    assert repr((asked.cores, asked.shards, asked.memory)) == "(2, 3, 1.5)"


def test_a_killed_stage_goes_on_from_its_checkpoint(toy) -> None:
    outcome = toy.tilt("run", "goal=[climb]", "+stages.climb.fall=2")
    assert outcome.returncode == 0, outcome.stdout
    assert toy.executed() == ["0", "1", "2", "3"]  # killed before 2, then on from there
    (objects,) = (toy.path / "store/objects").glob("*/*")
    assert sorted(os.listdir(objects)) == ["log.txt", "manifest.json", "payload"]  # checkpoints are no result
    assert not list((toy.path / "store/staging").iterdir())


def test_what_is_forced_starts_from_nothing(toy) -> None:
    killed = ["goal=[climb]", "+stages.climb.fall=2"]
    assert toy.tilt("run", *killed, "executor.retries=0").returncode == 1
    assert list((toy.path / "store/staging").glob("*/checkpoints/step.txt"))  # kept for the next attempt
    toy.tilt("force", "climb", *killed)
    assert not list((toy.path / "store/staging").iterdir())
    toy.executed()
    assert toy.tilt("run", *killed, "executor.retries=0").returncode == 1
    assert toy.executed() == ["0", "1"]
    assert toy.tilt("run", *killed, "executor.retries=0").returncode == 0
    assert toy.executed() == ["2", "3"]


def test_processes_of_a_stage_share_its_cores_and_it_runs_as_a_module(toy) -> None:
    outcome = toy.tilt("run", "goal=[left]", "executor.cores=2", "+stages.left.resources.processes=2")
    assert outcome.returncode == 0, outcome.stdout
    assert spans(toy)["left"][2] == 1
    (objects,) = (toy.path / "store/objects").glob("*/*")
    assert sorted(os.listdir(objects)) == ["log.txt", "manifest.json", "payload"]
