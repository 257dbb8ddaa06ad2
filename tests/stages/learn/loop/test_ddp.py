"""Two processes on CPU (gloo) against one: the same weights, one writer, a clean end when one dies."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.build import build

RUNTIME = "stages.learn.loop.trainer.TrainingRuntime"


def tuning(model: Path, prompts: Path, machines: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A fine-tuning as the runner is told of it."""
    settings = {
        "lora_rank": 4,
        "top_layers": 0,
        "learning_rate": 1e-2,
        "batch_size": 7,
        "epochs": 1,
        "dtype": "float32",
    } | fields
    target = {"_target_": "stages.learn.policies.sft.FineTune", "model": str(model), "prompts": str(prompts)}
    return target | settings | {"runtime": {"_target_": RUNTIME, "rows": 7} | machines}


def test_two_processes_train_the_weights_of_one_and_only_the_first_writes(
    tmp_path: Path, tiny_model: Path, references: Path, in_processes, monkeypatch: pytest.MonkeyPatch
):
    # 60 references in batches of 7: every batch is cut unevenly, the last one has 4; two parts each process
    monkeypatch.chdir(tmp_path)
    early = {"_target_": "stages.learn.loop.trainer.Trainer", "patience": 99, "check_every": 3}
    (tmp_path / "one").mkdir()
    build(tuning(tiny_model, references, {}, trainer=early)).run(tmp_path / "one")
    machines = {"devices": 2, "strategy": "ddp", "accumulate": 2}
    event, figures, _ = in_processes(tuning(tiny_model, references, machines, trainer=early), tmp_path / "two")
    assert event == "done"
    assert figures["sequences"] == 60  # as the first process reports
    before = load_file(tiny_model / "model.safetensors")
    one = load_file(tmp_path / "one/model.safetensors")
    two = load_file(tmp_path / "two/payload/model.safetensors")
    moved = sum(float((one[name] - before[name]).norm() ** 2) for name in one) ** 0.5
    apart = sum(float((one[name] - two[name]).norm() ** 2) for name in one) ** 0.5
    assert moved > 0.1
    assert apart / moved < 1e-4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
    written = [sorted(p.name for p in (tmp_path / folder).iterdir()) for folder in ("one", "two/payload")]
    assert written[0] == written[1]
    assert list((tmp_path / "two/rank1").iterdir()) == []
    assert not torch.distributed.is_initialized()


def test_a_process_killed_in_the_midst_of_training_ends_the_stage(
    tmp_path: Path, tiny_model: Path, references: Path, in_processes, rank_process
):
    killed: list[int] = []

    def kill(done: int) -> None:
        if done > 1 and not killed:
            killed.append(rank_process(tmp_path, 1))
            os.kill(killed[0], signal.SIGKILL)

    config = tuning(tiny_model, references, {"devices": 2}, epochs=50)
    event, told = in_processes(config, tmp_path / "out", progressed=kill)
    assert event == "failed"
    assert told["message"].startswith("process 1 of 2 ended by SIGKILL")
    assert told["retryable"]
    assert killed
    assert list((tmp_path / "out/payload").iterdir()) == []
    assert rank_process(tmp_path, 0) is None


def test_what_all_processes_refuse_is_one_line(tmp_path: Path, tiny_model: Path, references: Path, in_processes):
    if torch.cuda.is_available():
        pytest.skip("this machine has them")
    config = tuning(tiny_model, references, {"devices": 2, "device": "cuda"})
    event, told = in_processes(config, tmp_path)
    assert (event, told["kind"], told["field"]) == ("failed", "input", "runtime.device")
    assert told["message"].startswith("'cuda' is no device of this machine")
