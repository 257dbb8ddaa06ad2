"""Every stage that trains, in two processes on CPU (gloo) and in one: the same weights for the same global batches.

Starting a process costs more than all these trainings, so one pair of processes runs them one after the other.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.build import build

SEVERAL = """
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.learn.loop.trainer import TrainingRuntime

@dataclass
class Several:
    stages: dict
    runtime: TrainingRuntime = field(default_factory=TrainingRuntime)

    def run(self, out: Path) -> None:
        for name, stage in self.stages.items():
            stage.runtime.rank, stage.runtime.world = self.runtime.rank, self.runtime.world
            (out / name).mkdir()
            stage.run(out / name)

@dataclass
class Letters:
    # Reward: share of lower-case letters.
    def score(self, prompts, responses):
        return np.array([sum(c.islower() for c in r) / max(1, len(r)) for r in responses])
"""
"""A stage made of others, and a reward, in a module that the other process can import as it would a user's."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All that a stage wrote, by file and name."""
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{path.stem}/{name}": tensor.float() for path in files for name, tensor in load_file(path).items()}


CASES = ["dpo", "value", "value_vocab", "value_lora", "value_lora_vocab", "value_own_model", "ppo", "classifier"]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_tiny_model: Any,
    tiny_encoder: Path,
    examples: Path,
    toy: Callable[..., Path],
    in_processes: Callable[..., tuple[Any, ...]],
) -> Path:
    """A folder `one` and a folder `two`, by the number of processes, with a folder for each case."""
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "several_stages.py").write_text(SEVERAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        labels = str(toy(folder, prompts=12))
        small = make_tiny_model(folder / "small", seed=3, layers=2, hidden=16)
        common = {"prompts": labels, "base": str(tiny_model), "dtype": "float32"}
        learnt = common | {"labels": labels, "batch_size": 7, "learning_rate": 1e-2, "epochs": 1.0}
        value = {"_target_": "stages.learn.values.train.TrainValue", **learnt, "layer": 2, "heldout": 0.25}
        lora = {"lora_rank": 4, "top_layers": 0}
        sampling = {"_target_": "stages.engine.sampling.Sampling", "temperature": 0.2, "max_new_tokens": 4}
        drawn = {"reward": {"_target_": "several_stages.Letters"}, "sampling": sampling}
        sizes = {"iterations": 3, "batch_size": 14, "minibatch": 7, "value_width": 16, "learning_rate": 1e-2}
        trainer = {"_target_": "stages.learn.loop.trainer.Trainer"}
        reward = {"batch_size": 7, "learning_rate": 1e-3, "trainer": trainer}
        stages = {
            "dpo": {"_target_": "stages.learn.policies.dpo.Dpo", **learnt, **lora, "margin": 0.0},
            "value": value,
            "value_vocab": value | {"head": "vocab"},
            "value_lora": value | lora,
            "value_lora_vocab": value | lora | {"head": "vocab"},
            "value_own_model": value | lora | {"model": str(small)},
            "classifier": {
                "_target_": "stages.learn.rewards.classifier.Classifier",
                "examples": str(examples),
                "encoder": str(tiny_encoder),
                **reward,
            },
            "ppo": {"_target_": "stages.learn.policies.ppo.Ppo", **common, **drawn, **sizes, **lora},
        }

        def several(**machines: int) -> dict[str, Any]:
            runtime = {"_target_": "stages.learn.loop.trainer.TrainingRuntime", **machines}
            placed = {name: stage | {"runtime": runtime} for name, stage in stages.items()}
            return {"_target_": "several_stages.Several", "stages": placed, "runtime": runtime}

        (folder / "one").mkdir()
        build(several()).run(folder / "one")
        # Batches of 7: none is cut evenly into two processes with two parts each.
        ended = in_processes(several(devices=2, rows=5, accumulate=2), folder / "runner")
        assert ended[0] == "done", ended
        (folder / "runner/payload").rename(folder / "two")
        del sys.modules["several_stages"]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_weights_of_one(trained: Path, tiny_model: Path, tiny_encoder: Path, case: str):
    one, two = (weights(trained / name / case) for name in ("one", "two"))
    start = {"value_own_model": trained / "small", "classifier": tiny_encoder}
    before = weights(start.get(case, tiny_model))
    assert one.keys() == two.keys()
    # How far a model moved from where it was; a head counts whole, its output layer starts at zero.
    kept = [name for name in one if not name.endswith(("/mean", "/sd"))]
    moved = sum(float((one[name] - before.get(name, torch.zeros(()))).norm() ** 2) for name in kept) ** 0.5
    apart = sum(float((one[name] - two[name]).norm() ** 2) for name in one) ** 0.5
    assert moved > 0.1
    assert apart / moved < 1e-4
    assert sorted(p.name for p in (trained / "two" / case).iterdir()) == sorted(
        p.name for p in (trained / "one" / case).iterdir()
    )
