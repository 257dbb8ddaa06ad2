"""Sweepers and launchers that are not ours."""

import pytest
import yaml

SWEEP = ["-m", "voice.word=hello,goodbye"]


def test_submitit_runs_a_job_a_point_over_the_shared_store(toy) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra `slurm`")
    launcher = ["hydra/launcher=submitit_local", "executor.cores=1"]
    outcome = toy.tilt("run", *SWEEP, *launcher)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert sorted(toy.executed()) == ["goodbye", "hello", "well"]  # `well` once: the jobs share the store
    assert list(toy.path.glob("runs/*/.submitit/*"))
    assert toy.tilt("run", *SWEEP).returncode == 0
    assert toy.executed() == []  # but for the comparison of both, all is there


def test_a_point_that_fails_as_a_submitit_job_fails_the_command(toy) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra `slurm`")
    launcher = ["hydra/launcher=submitit_local", "executor.cores=1"]
    outcome = toy.tilt("run", *SWEEP, *launcher, "voice.how=badly")
    assert outcome.returncode == 1
    assert "RuntimeError: the voice broke" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert (toy.tilt("run", *SWEEP, *launcher, "voice.how=input")).returncode == 2


def test_hydras_basic_launcher_runs_the_points_one_by_one(toy) -> None:
    outcome = toy.tilt("run", *SWEEP, "hydra/launcher=basic")
    assert outcome.returncode == 0, outcome.stderr
    assert sorted(toy.executed()) == ["goodbye", "hello", "well"]


def optuna(toy, *arguments: str):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    study = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1"]
    return toy.tilt("run", "-m", *study, "hydra.sweeper.n_jobs=2", "hydra.sweeper.max_failure_rate=1", *arguments)


def best(toy) -> dict:
    return yaml.safe_load((toy.path / "runs/latest/optimization_results.yaml").read_text())


@pytest.mark.parametrize(("direction", "word", "value"), [("maximize", "bbb", 3), ("minimize", "a", 1)])
def test_optuna_is_told_what_each_point_is_worth_and_batches_reuse_each_other(
    toy, direction: str, word: str, value: int
) -> None:
    outcome = optuna(
        toy, "voice.word=choice(a,bbb,cc)", "hydra.sweeper.n_trials=8", f"hydra.sweeper.direction={direction}"
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    # `objective: second.letters`
    assert best(toy) == {"name": "optuna", "best_params": {"voice.word": word}, "best_value": value}
    executed = toy.executed()
    assert sorted(executed) == ["a", "bbb", "cc", "well"]  # four batches of two, each stage once
    results = (toy.path / "runs/latest/comparison.csv").read_text().split()
    assert sorted(results) == ["A", "BBB", "CC", "WELL", "WELL", "WELL"]  # of all batches, not the last alone


def test_a_failed_point_is_a_failed_trial_and_the_others_count(toy) -> None:
    outcome = optuna(toy, "voice.how=choice(well,badly)", "hydra.sweeper.n_trials=6")
    assert outcome.returncode == 1
    assert best(toy)["best_params"] == {"voice.how": "well"}


def test_points_that_are_not_known_beforehand_cannot_be_planned(toy) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    outcome = toy.tilt("plan", "-m", "hydra/sweeper=optuna", "voice.word=choice(a,bbb,cc)")
    assert outcome.returncode == 2
    assert "tilt: hydra/sweeper: OptunaSweeper chooses its points while it runs; only tilt run" in outcome.stderr


def test_a_sweeper_that_learns_must_be_told_from_what(toy) -> None:
    outcome = optuna(toy, "voice.word=choice(a,bbb,cc)", "objective=null")
    assert outcome.returncode == 2
    assert "tilt: objective: OptunaSweeper learns from what points are worth; name a stage's metric" in outcome.stderr
    assert toy.executed() == []


def test_an_objective_that_no_stage_reports_is_one_line(toy) -> None:
    outcome = toy.tilt("run", "objective=second.leters")
    assert outcome.returncode == 2
    assert outcome.stderr == "tilt: objective: second reports no 'leters'; did you mean 'letters'?\n"
