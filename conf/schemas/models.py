"""Schemas of `conf/model/`, `conf/reward/`, `conf/sampling/`, `conf/rollouts/`: what draws text and what scores it."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from conf.schemas.bounds import bounded


@dataclass
class Model:
    """The language model that everything starts from. `load` is the stage that brings it."""

    load: Any = MISSING
    dtype: str = bounded("one of float32, bfloat16, float16", choices=("float32", "bfloat16", "float16"))
    device: str = MISSING


@dataclass
class LocalModel(Model):
    """A model in a folder of the user."""

    path: str = MISSING


@dataclass
class HubModel(Model):
    """A model of the Hugging Face hub."""

    repo: str = MISSING
    revision: str = MISSING


@dataclass
class Reward:
    """A reward: `scorer` judges texts, `train` is the stage that makes it, `asset` the one that brings its start."""

    name: str = MISSING
    scorer: Any = MISSING
    train: Any = None
    asset: Any = None


@dataclass
class Sampling:
    """How a policy is sampled."""

    _target_: str = MISSING
    temperature: float = bounded("a positive temperature", above=0)
    top_p: float = bounded("a probability above 0, at most 1", above=0, most=1)
    top_k: int = bounded("a number of tokens, 0 or more (0: all)", least=0)
    min_p: float = bounded("a probability between 0 and 1", least=0, most=1)
    greedy: bool = MISSING
    max_new_tokens: int = bounded("a positive number of tokens", least=1)
    stop: list[str] = field(default_factory=list)


@dataclass
class Rollouts:
    """The responses of π₀ that values and tuned policies learn from."""

    part: str = MISSING
    samples: int = bounded("a positive number of samples", least=1)
    seed: int = bounded("a whole number, 0 or more", least=0)
