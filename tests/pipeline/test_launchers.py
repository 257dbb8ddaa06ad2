"""Sweepers and launchers that are not ours, and DDP inside a stage."""

import json
import os
from pathlib import Path

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


RANKS = '''
import dataclasses, os, pathlib
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, _):
        return self.layer(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

@dataclasses.dataclass
class Train:
    """A training in two ranks; `dies` ends the second one in the middle."""
    folder: str
    dies: bool = False
    def run(self, out):
        with open(pathlib.Path(self.folder) / "witness.txt", "a") as stream:
            stream.write(f"rank{os.environ.get('LOCAL_RANK', 0)}\\n")
        trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=3, logger=False,
                          enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(Line(), DataLoader(torch.ones(12, 1), batch_size=2))
        if self.dies and trainer.global_rank == 1:
            os._exit(9)
        trainer.strategy.barrier()
        (out / f"weights{trainer.global_rank}.txt").write_text(f"{trainer.world_size}")
'''


@pytest.fixture
def training(toy) -> list[str]:
    (toy.path / "ranks.py").write_text(RANKS)
    train = f"+stages.train={{_target_: ranks.Train, folder: {toy.path}, resources: {{processes: 2}}}}"
    return ["-m", "goal=[train,apart]", train, "voice.word=hello,goodbye"]


def test_lightnings_ddp_starts_a_second_rank_and_never_the_sweep_again(toy, training: list[str]) -> None:
    outcome = toy.tilt("run", *training)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert sorted(toy.executed()) == ["alone", "rank0", "rank1"]
    manifests = [json.loads(path.read_text()) for path in (toy.path / "store/objects").glob("*/*/manifest.json")]
    (trained,) = [manifest for manifest in manifests if manifest["stage"] == "train"]
    assert list(trained["files"]) == ["weights0.txt"]  # rank 0 alone publishes
    assert Path(toy.path / "store/objects" / trained["key"][:2] / trained["key"]).is_dir()


def test_a_rank_that_dies_fails_the_stage_and_leaves_no_process_behind(toy, training: list[str]) -> None:
    outcome = toy.tilt("run", *training, "+stages.train.dies=true", "executor.retries=0")
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert "alone" in toy.executed()
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and str(toy.path) in command_line(pid)]
    objects = (toy.path / "store/objects").glob("*/*/manifest.json")
    assert [json.loads(path.read_text())["stage"] for path in objects] == ["apart"]


def command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
