"""The fields of the stage `Ppo` (`ppo.py`), which its loop (`ppo_learner.py`) reads too."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.loop.trainer import Trainer, machines_of
from stages.reward import Reward
from stages.runtime import Runtime


@dataclass
class PpoSettings:
    """Fields of the stage `Ppo`."""

    prompts: Path
    """Payload of stage `prompts`."""
    base: Path
    """Folder of π₀: training starts from it, and KL is to it."""
    reward: Reward
    """What is maximised; z-scored by the mean and deviation of the first iteration, which is π₀'s own."""
    sampling: Sampling
    """Temperature and length of the responses. Truncation must be off: a ratio needs every token's probability."""
    part: str = "train"
    """The prompts that are answered."""
    beta: float = 0.1
    """Weight of KL to π₀ against the z-scored reward."""
    target_kl: float = 0.0
    """Where positive, β is steered towards this many nats a response."""
    iterations: int = 8
    batch_size: int = 64
    """Responses an iteration, each to another prompt as far as there are."""
    minibatch: int = 16
    """Responses an optimiser step."""
    epochs: int = 2
    """Passes over an iteration's responses."""
    clip: float = 0.2
    """ε of the surrogate."""
    value_clip: float = 0.2
    """ε of the value loss."""
    lam: float = 0.95
    """λ of the advantages; γ is 1."""
    whitening: bool = True
    """Advantages with mean 0 and deviation 1."""
    max_kl: float = 0.05
    """KL from the policy that drew, nats a token, beyond which an iteration ends early; 0: never."""
    lora_rank: int = 16
    lora_alpha: int = 16
    top_layers: int = 10
    """How many layers, counted from the top, get an adapter; 0: all."""
    learning_rate: float = 1e-3
    value_learning_rate: float = 1e-3
    value_width: int = 256
    """Hidden units of the value head."""
    dtype: str = "bfloat16"
    """Of the frozen weights and of the saved model; adapters and value head are trained in float32."""
    seed: int = 0
    trainer: Trainer = field(default_factory=Trainer)
    """Its `max_steps` counts iterations here; there is nothing held out to stop by."""
    runtime: Runtime = field(default_factory=Runtime)

    def check(self) -> None:
        """Raises BadInput naming the first value that cannot be used."""
        self.sampling.check()
        if self.sampling.greedy or self.sampling.top_p < 1 or self.sampling.top_k or self.sampling.min_p:
            raise BadInput("sampling", "PPO draws with temperature alone; set top_p=1, top_k=0, min_p=0, greedy=false")
        positive = ("iterations", "batch_size", "minibatch", "epochs", "clip", "value_clip", "value_width")
        for name in (*positive, "learning_rate", "value_learning_rate"):
            if not getattr(self, name) > 0:
                raise BadInput(name, f"{getattr(self, name)} is not positive")
        for name in ("beta", "target_kl", "max_kl"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise BadInput(name, f"{getattr(self, name)} is not a number of 0 or more")
        if not 0 <= self.lam <= 1:
            raise BadInput("lam", f"{self.lam} is not between 0 and 1")
        machines_of(self.runtime, self.trainer)
