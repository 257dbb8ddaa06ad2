"""Schemas of `conf/trainer/`, `conf/value/` and `conf/foresight/`: how models are trained, and the value among them."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from conf.schemas.bounds import bounded


@dataclass
class Trainer:
    """How models are trained: a stage is handed `settings`, which count, and `runtime`, which says where it runs."""

    accelerator: str = MISSING
    devices: int = bounded("a positive number of devices", least=1)
    strategy: str = bounded("one of auto, ddp", choices=("auto", "ddp"))
    accumulate: int = bounded("a positive number of parts", least=1)
    checkpoint_every: int = bounded("a number of steps, 0 or more (0: none)", least=0)
    resume: bool = MISSING
    precision: str = bounded("one of 32, bf16-mixed", choices=("32", "bf16-mixed"))
    clip: float = bounded("a norm, 0 or more (0: any)", least=0)
    schedule: str = bounded("one of cosine, linear, constant", choices=("cosine", "linear", "constant"))
    warmup: float = bounded("a share between 0 and 1", least=0, most=1)
    max_steps: int = bounded("a number of steps, 0 (by epochs) or more", least=0)
    patience: int = bounded("a number of checks, 0 (off) or more", least=0)
    check_every: int = bounded("a positive number of steps", least=1)
    settings: Any = MISSING
    runtime: Any = MISSING


@dataclass
class Value:
    """How the value model is trained."""

    reward: str = MISSING
    layer: int = bounded("a layer, 0 (embeddings) or more", least=0)
    rewards: list[str] = field(default_factory=list)
    model: str | None = None
    head: str = bounded("one of linear, mlp, vocab", choices=("linear", "mlp", "vocab"))
    target: str = bounded("one of td_lambda, fudge, bellman, soft", choices=("td_lambda", "fudge", "bellman", "soft"))
    eta: float = bounded("a positive η", above=0)
    lora_rank: int = bounded("a rank, 0 (frozen) or more", least=0)
    lora_alpha: int = bounded("a positive scale", least=1)
    top_layers: int = bounded("a number of layers, 0 (all) or more", least=0)
    allow_truncated: bool = MISSING
    width: int = bounded("a positive width", least=1)
    td_lambda: float = bounded("a number between 0 and 1", least=0, most=1)
    learning_rate: float = bounded("a positive learning rate", above=0)
    batch_size: int = bounded("a positive number of rollouts", least=1)
    epochs: float = bounded("a positive number of passes", above=0)
    weight_decay: float = bounded("a weight decay, 0 or more", least=0)
    heldout: float = bounded("a share between 0 and 0.9", least=0, most=0.9)
    seed: int = bounded("a whole number, 0 or more", least=0)


@dataclass
class Foresight:
    """How well the value foresees: `measured` refers to what measures it (null: the report says nothing of it)."""

    measured: str | None = None
    samples: int = bounded("a number of responses, 2 or more", least=2)
