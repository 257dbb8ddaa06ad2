"""What every training stage refuses, in one line that names the key and the way out. What a stage refuses of its own
stands with its tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages import records
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.loop.trainer import Trainer, TrainingRuntime
from stages.learn.policies.dpo import Dpo
from stages.learn.policies.ppo import Ppo
from stages.learn.policies.sft import FineTune
from stages.learn.rewards.classifier import Classifier
from stages.learn.values.train import TrainValue
from stages.records import Labelled, Prompt
from stages.runtime import Runtime

STAGES = ["sft", "dpo", "ppo", "value", "classifier"]


class Length:
    """Reward: how long a response is."""

    def score(self, prompts, responses) -> np.ndarray:
        return np.array([float(len(r)) for r in responses])


def rollout(i: int, reward: float | None) -> Labelled:
    return Labelled(
        prompt_id=f"p{i % 4}",
        sample=i // 4,
        token_ids=[270 + i, 2],
        text=str(i),
        logprob=-1.0,
        finished=True,
        part="train",
        rewards={"proxy": reward},  # type: ignore[dict-item]
    )


@pytest.fixture
def build(tmp_path: Path, tiny_model: Path, tiny_encoder: Path, references: Path, examples: Path):
    """A stage of a kind, for two steps: `build(kind, **fields)`."""
    records.write(tmp_path / "prompts.parquet", Prompt, [Prompt(id=f"p{i}", part="train", text="a") for i in range(4)])
    records.write(tmp_path / "labels.parquet", Labelled, [rollout(i, float(i)) for i in range(12)])
    learnt: dict[str, Any] = {"labels": tmp_path, "prompts": tmp_path, "base": tiny_model, "heldout": 0.0}
    lora = {"lora_rank": 4, "top_layers": 0, "dtype": "float32"}
    drawn = {"reward": Length(), "sampling": Sampling(max_new_tokens=4), "batch_size": 8}
    kinds = {
        "sft": (FineTune, {"model": tiny_model, "prompts": references} | lora),
        "dpo": (Dpo, learnt | lora),
        "ppo": (Ppo, {"prompts": tmp_path, "base": tiny_model} | drawn | lora),
        "value": (TrainValue, learnt | {"layer": 2, "dtype": "float32", "width": 8}),
        "classifier": (Classifier, {"examples": examples, "encoder": tiny_encoder}),
    }

    def build(kind: str, **fields: Any) -> Any:
        stage, given = kinds[kind]
        return stage(**given | {"trainer": Trainer(max_steps=2)} | fields)

    return build


@pytest.mark.parametrize("kind", STAGES)
def test_devices_that_are_not_there(tmp_path: Path, build, kind: str):
    with pytest.raises(BadInput, match=r"^runtime\.device: 'abacus' is no device of this machine; set trainer\."):
        build(kind, runtime=Runtime(device="abacus")).run(tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match=r"^runtime\.device: 'cuda' is no device of this machine"):
            build(kind, runtime=TrainingRuntime(device="cuda", devices=2)).run(tmp_path)
    with pytest.raises(BadInput, match=r"^runtime\.accumulate: 0 is less than 1"):
        build(kind, runtime=TrainingRuntime(accumulate=0)).run(tmp_path)


@pytest.mark.parametrize("kind", STAGES)
def test_settings_of_the_trainer(tmp_path: Path, build, kind: str):
    with pytest.raises(BadInput, match=r"^trainer\.schedule: 'step' is not one of cosine, linear, constant"):
        build(kind, trainer=Trainer(schedule="step")).run(tmp_path)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("sft", {"lora_rank": 2}),
        ("dpo", {"top_layers": 1}),
        ("ppo", {"value_width": 16}),
        ("value", {"width": 16}),
        ("value", {"head": "vocab"}),
        ("value", {"lora_rank": 2}),
    ],
)
def test_a_checkpoint_of_another_architecture(tmp_path: Path, build, kind: str, other: dict):
    (kept := tmp_path / "kept").mkdir()
    (out := tmp_path / "out").mkdir()
    build(kind, runtime=TrainingRuntime(checkpoints=kept, checkpoint_every=1)).run(out)
    pattern = (
        r"^runtime\.checkpoints: .*ckpt is of another architecture: .* remove the file or set trainer\.resume=false"
    )
    with pytest.raises(BadInput, match=pattern):
        build(kind, runtime=TrainingRuntime(checkpoints=kept), **other).run(out)


@pytest.mark.parametrize("kind", ["dpo", "value"])
def test_an_empty_reward_column(tmp_path: Path, build, kind: str):
    stage = build(kind)
    records.write(tmp_path / "labels.parquet", Labelled, [rollout(i, None) for i in range(12)])
    with pytest.raises(BadInput, match=r"^labels: reward 'proxy' is empty: none of 12 rollouts has one; label them"):
        stage.run(tmp_path)
