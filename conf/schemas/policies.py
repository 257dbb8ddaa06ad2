"""Schemas of `conf/policy/` and `conf/tuned/`: π₀, and the policies that are tuned from it."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from conf.schemas.bounds import bounded


@dataclass
class Policy:
    """π₀, the frozen base policy: `folder` refers to it, `train` is the stage that makes it (null: none)."""

    folder: str = MISSING
    train: Any = None
    beta: float = bounded("a positive strength", above=0)


@dataclass
class LoraPolicy(Policy):
    """A policy that is trained through adapters, which are merged into it at the end."""

    lora_rank: int = bounded("a positive rank", least=1)
    lora_alpha: int = bounded("a positive scale", least=1)
    top_layers: int = bounded("a number of layers, 0 (all) or more", least=0)
    seed: int = bounded("a whole number, 0 or more", least=0)


@dataclass
class SftPolicy(LoraPolicy):
    """π₀ as the model fine-tuned on references."""

    learning_rate: float = bounded("a positive learning rate", above=0)
    batch_size: int = bounded("a positive number of sequences", least=1)
    epochs: float = bounded("a positive number of passes", above=0)
    max_tokens: int = bounded("a positive number of tokens", least=1)


@dataclass
class DpoPolicy(LoraPolicy):
    """A policy tuned from π₀ by DPO. It stands beside π₀."""

    reward: str = MISSING
    label_smoothing: float = bounded("a probability from 0 to below ½", least=0, most=0.499)
    length_normalised: bool = MISSING
    pairs: int = bounded("a positive number of pairs", least=1)
    margin: float = bounded("a difference in standard deviations, 0 or more", least=0)
    learning_rate: float = bounded("a positive learning rate", above=0)
    batch_size: int = bounded("a positive number of pairs", least=1)
    epochs: float = bounded("a positive number of passes", above=0)
    heldout: float = bounded("a share between 0 and 0.9", least=0, most=0.9)
    allow_truncated: bool = MISSING


@dataclass
class PpoPolicy(LoraPolicy):
    """A policy tuned from π₀ by PPO. It stands beside π₀."""

    target_kl: float = bounded("a number of nats, 0 (fixed weight) or more", least=0)
    part: str = MISSING
    iterations: int = bounded("a positive number of iterations", least=1)
    batch_size: int = bounded("a positive number of responses", least=1)
    minibatch: int = bounded("a positive number of responses", least=1)
    epochs: int = bounded("a positive number of passes", least=1)
    clip: float = bounded("a positive bound", above=0)
    value_clip: float = bounded("a positive bound", above=0)
    lam: float = bounded("a number between 0 and 1", least=0, most=1)
    whitening: bool = MISSING
    max_kl: float = bounded("a number of nats a token, 0 (never) or more", least=0)
    learning_rate: float = bounded("a positive learning rate", above=0)
    value_learning_rate: float = bounded("a positive learning rate", above=0)
    value_width: int = bounded("a positive width", least=1)


@dataclass
class Tuned:
    """The tuned model of implicit guidance, which is held against π₀: `folder` refers to it, `train` makes it."""

    folder: str = MISSING
    train: Any = None
    best_rollouts: Any = None


@dataclass
class BestRolloutsTuned(Tuned):
    """π₀ fine-tuned on the best of its rollouts; `best_rollouts` is the stage that chooses them."""

    best: int = bounded("a positive number of responses", least=1)
    learning_rate: float = bounded("a positive learning rate", above=0)
    epochs: float = bounded("a positive number of passes", above=0)
