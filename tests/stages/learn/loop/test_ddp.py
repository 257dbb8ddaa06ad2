"""Two processes on CPU (gloo) against one: the same weights, one writer, a clean end when one dies."""

import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages.description import described, rebuilt
from stages.errors import BadInput
from stages.learn.loop import ranks
from stages.learn.loop.ranks import Group, RankDied, together
from stages.learn.loop.trainer import Trainer, TrainingRuntime
from stages.learn.policies.dpo import Dpo
from stages.learn.policies.sft import FineTune


def tuned(out: Path, model: Path, prompts: Path, machines: TrainingRuntime, **fields) -> dict[str, torch.Tensor]:
    out.mkdir(parents=True, exist_ok=True)
    settings = {"lora_rank": 4, "learning_rate": 1e-2, "batch_size": 7, "epochs": 1, "dtype": "float32"} | fields
    FineTune(model=model, prompts=prompts, runtime=machines, **settings).run(out)
    return load_file(out / "model.safetensors")


def test_two_processes_train_the_weights_of_one_and_only_the_first_writes(
    tmp_path: Path, tiny_model: Path, references: Path, monkeypatch: pytest.MonkeyPatch
):
    # 60 references in batches of 7: every batch is cut unevenly, the last one has 4; two parts each process
    monkeypatch.chdir(tmp_path)
    early = Trainer(patience=99, check_every=3)
    one = tuned(tmp_path / "one", tiny_model, references, TrainingRuntime(rows=7), trainer=early)
    figures: list[dict] = []
    two = tuned(
        tmp_path / "two",
        tiny_model,
        references,
        TrainingRuntime(devices=2, strategy="ddp", accumulate=2, rows=7, metrics=lambda m: figures.append(dict(m))),
        trainer=early,
    )
    before = load_file(tiny_model / "model.safetensors")
    moved = sum(float((one[name] - before[name]).norm() ** 2) for name in one) ** 0.5
    apart = sum(float((one[name] - two[name]).norm() ** 2) for name in one) ** 0.5
    assert moved > 0.1
    assert apart / moved < 1e-4
    assert len(figures) == 1  # one report, of one process
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(p.name for p in (tmp_path / "one").iterdir())
    assert not torch.distributed.is_initialized()


WAITING = """
import contextlib, os, time
from dataclasses import dataclass, field
from pathlib import Path
from stages.learn.loop.ranks import together
from stages.learn.loop.trainer import TrainingRuntime

@dataclass
class Waiting:
    folder: Path
    place: str = "before"
    runtime: TrainingRuntime = field(default_factory=TrainingRuntime)

    def run(self, out: Path) -> None:
        with together(self) as group:
            with group.training(self.runtime) if self.place == "in" else contextlib.nullcontext():
                if group.rank:
                    (self.folder / "pid").write_text(str(os.getpid()))
                    time.sleep(60)
            with group.training(self.runtime):
                pass
        (out / "written").touch()
"""
"""A stage whose other process says who it is and then waits to be killed, before the training or in it."""


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "waiting_stage.py").write_text(WAITING)
    monkeypatch.syspath_prepend(tmp_path)  # the other process imports the stage by its module's name
    yield importlib.import_module("waiting_stage").Waiting
    del sys.modules["waiting_stage"]


def kill_when_there(path: Path) -> None:
    while not (path.is_file() and path.read_text()):
        time.sleep(0.05)
    os.kill(int(path.read_text()), signal.SIGKILL)


def test_a_killed_process_ends_the_stage_and_nothing_is_written(tmp_path: Path, waiting):
    (tmp_path / "out").mkdir()
    threading.Thread(target=kill_when_there, args=(tmp_path / "pid",), daemon=True).start()
    begun = time.monotonic()
    with pytest.raises(RankDied, match=r"^process 1 of 2 ended by SIGKILL"):
        waiting(tmp_path, runtime=TrainingRuntime(devices=2)).run(tmp_path / "out")
    assert time.monotonic() - begun < 30
    assert list((tmp_path / "out").iterdir()) == []


def test_a_process_that_never_finishes_ends_the_stage_and_says_where_it_stands(
    tmp_path: Path, waiting, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ranks, "PATIENCE", 1.0)
    with pytest.raises(
        RankDied, match=r"^a process was not finished within 1 s; it stood at .*waiting_stage.py.* in run"
    ):
        waiting(tmp_path, "in", TrainingRuntime(devices=2)).run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_process_killed_in_the_midst_of_training_ends_the_stage(tmp_path: Path, tiny_model: Path, references: Path):
    killed: list[int] = []
    runtime = TrainingRuntime(devices=2, rows=7)

    def kill(done: int, total: int, note: str = "") -> None:
        if runtime.group is not None and done > 1 and not killed:
            killed.append(runtime.group.others[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    runtime.progress = kill
    with pytest.raises(RankDied, match=r"^process 1 of 2 ended by SIGKILL"):
        tuned(tmp_path / "out", tiny_model, references, runtime, epochs=50)
    assert killed
    assert list((tmp_path / "out").iterdir()) == []
    assert runtime.group is None


def test_a_stage_is_rebuilt_from_its_description(tmp_path: Path):
    stage = Dpo(
        labels=tmp_path,
        prompts=tmp_path,
        base=tmp_path / "base",
        beta=0.3,
        trainer=Trainer(clip=2.0),
        runtime=TrainingRuntime(devices=2, checkpoints=tmp_path, progress=print),
    )
    again = rebuilt(described(stage))
    stage.runtime = again.runtime = TrainingRuntime()
    assert again == stage


def test_devices_that_are_not_there_are_refused_before_any_process_starts(tmp_path: Path, waiting):
    if torch.cuda.is_available():
        pytest.skip("this machine has them")
    with pytest.raises(BadInput, match=r"^runtime\.device: 'cuda' is no device"):
        waiting(tmp_path, runtime=TrainingRuntime(device="cuda", devices=2)).run(tmp_path)


def test_one_device_needs_no_group(tmp_path: Path, waiting):
    with together(waiting(tmp_path)) as group:
        assert group == Group()
