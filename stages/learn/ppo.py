"""Stage: Proximal Policy Optimisation. Reads prompts, the base policy and a reward; writes the tuned policy as an
ordinary Hugging Face folder (safetensors, config, tokenizer, README.md).

    tilt run goal=[ppo] method=ppo

Every iteration draws responses by the decoding engine, with the policy as it then stands, and learns from them alone
(arXiv 1707.06347; KL penalty to π₀ in the reward, arXiv 1909.08593).
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.decode.sampling import Sampling
from stages.errors import BadInput
from stages.learn.adapt import merged, save_policy
from stages.learn.cards import table
from stages.learn.ppo_learner import Learner
from stages.learn.ranks import together
from stages.learn.trainer import Trainer, machines_of, seeded
from stages.learn.watch import quiet
from stages.reward import Reward
from stages.runtime import Runtime


@dataclass
class Ppo:
    """LoRA fine-tuning of the base policy on rewards of its own responses, drawn anew at every iteration."""

    prompts: Path
    """Payload of stage `prompts`."""
    policy: Path
    """Folder of π₀: the reference and the start."""
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
    iterations: int = 16
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
    top_layers: int = 0
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

    def run(self, out: Path) -> None:
        """Raises BadInput for settings that cannot be used, FloatingPointError where logits are not finite."""
        self._check()
        machines = machines_of(self.runtime)
        with together(self) as group, group.training(self.runtime), seeded(self.seed), quiet():
            learner = Learner(self, machines)
            begun = time.perf_counter()
            history = learner.learn()
            if group.rank:
                return
        metrics = learner.metrics(history) | {"seconds": time.perf_counter() - begun}
        policy = merged(learner.adapters, self.dtype)
        about = (
            f"A causal language model (`{Path(self.policy).name}`), tuned by Proximal Policy Optimisation (arXiv "
            f"1707.06347) with LoRA on a reward (`{type(self.reward).__name__}`) of its own responses, then merged."
        )
        data = [table(Path(self.prompts) / "prompts.parquet", f"{len(learner.prompts)} prompts of part `{self.part}`")]
        data += [f"{metrics['responses']:.0f} responses of the policy itself, drawn anew at every iteration"]
        saved = {"title": "PPO policy", "about": about, "data": data, "stage": self, "metrics": metrics}
        save_policy(out, policy, learner.policy.tokenizer, **saved)
        rows = [[i, *(step[name] for name in ("reward", "kl", "beta", "value_loss"))] for i, step in enumerate(history)]
        self.runtime.table("ppo", ["iteration", "reward", "kl", "beta", "value_loss"], rows)
        self.runtime.metrics(metrics)

    def _check(self) -> None:
        self.sampling.check()
        self.trainer.check()
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
