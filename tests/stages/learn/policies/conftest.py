"""What PPO is tried on: a reward of a user's own, a dozen prompts, and a short training."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages import records
from stages.engine.sampling import Sampling
from stages.learn.policies.ppo import Ppo
from stages.records import Prompt
from stages.runtime import Runtime

REWARDS = """
from dataclasses import dataclass
import numpy as np

@dataclass
class Letters:
    constant: bool = False
    broken: bool = False

    def score(self, prompts, responses):
        if self.constant:
            return np.ones(len(responses))
        found = np.array([sum(c.islower() for c in r) / max(1, len(r)) for r in responses])
        return np.where(np.arange(len(found)) == 3, np.nan, found) if self.broken else found
"""


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Reward: share of lower-case letters, in a module of its own as a user's is: other processes must find it."""
    (tmp_path / "letters.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("letters").Letters
    del sys.modules["letters"]


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    made = [Prompt(id=f"p{i}", part="train", text="the film " * (1 + i % 3)) for i in range(12)]
    records.write(folder / "prompts.parquet", Prompt, made)
    return folder


def stage(prompts: Path, base: Path, reward: Any, runtime: Runtime | None = None, **fields: Any) -> Ppo:
    settings = {
        "iterations": 3,
        "batch_size": 16,
        "minibatch": 8,
        "learning_rate": 1e-2,
        "dtype": "float32",
        "lora_rank": 4,
        "top_layers": 0,
        "value_width": 16,
        "sampling": Sampling(temperature=0.2, max_new_tokens=4),
    }
    return Ppo(prompts=prompts, base=base, reward=reward, runtime=runtime or Runtime(rows=9), **settings | fields)


@pytest.fixture(scope="session")
def ppo_stage() -> Callable[..., Ppo]:
    """`ppo_stage(prompts, base, reward, runtime=None, **fields)`: the stage, with settings of a short training."""
    return stage


@pytest.fixture(scope="session")
def train_ppo() -> Callable[..., dict[str, torch.Tensor]]:
    """`train_ppo(out, prompts, base, reward, runtime=None, **fields)`: trains, and gives the weights that it wrote."""

    def train(out: Path, *arguments: Any, **fields: Any) -> dict[str, torch.Tensor]:
        out.mkdir(parents=True, exist_ok=True)
        stage(*arguments, **fields).run(out)
        return load_file(out / "model.safetensors")

    return train
