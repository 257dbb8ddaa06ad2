"""Stage: Proximal Policy Optimisation. Reads prompts, π₀ and a reward; writes the tuned policy as an ordinary
Hugging Face folder (safetensors, config, tokenizer, README.md).

    tilt run goal=[ppo] method=ppo

Every iteration draws responses by the decoding engine, with the policy as it then stands, and learns from them alone
(arXiv 1707.06347; KL penalty to π₀ in the reward, arXiv 1909.08593).
"""

import time
from dataclasses import dataclass
from pathlib import Path

from stages.learn.cards import table
from stages.learn.loop.trainer import seeded
from stages.learn.loop.watch import quiet
from stages.learn.lora import merged
from stages.learn.policies.ppo_checkpoint import restore, save
from stages.learn.policies.ppo_learner import Learner
from stages.learn.policies.ppo_settings import PpoSettings
from stages.learn.policies.saved import save_policy


@dataclass
class Ppo(PpoSettings):
    """LoRA fine-tuning of π₀ on rewards of its own responses, drawn anew at every iteration."""

    def run(self, out: Path) -> None:
        """Raises BadInput for settings that cannot be used, FloatingPointError where logits, losses or
        trained weights are not finite."""
        self.check()
        with seeded(self.seed), quiet():
            learner = Learner(self)
            begun = time.perf_counter()
            history = restore(learner)
            for figures in learner.learn(len(history)):
                history.append(figures)
                save(learner, history)
        if self.runtime.rank:
            return
        metrics = learner.metrics(history) | {"seconds": time.perf_counter() - begun}
        tuned = merged(learner.adapters, self.dtype)
        about = (
            f"A causal language model (`{Path(self.base).name}`), tuned by Proximal Policy Optimisation (arXiv "
            f"1707.06347) with LoRA on a reward (`{type(self.reward).__name__}`) of its own responses, then merged."
        )
        data = [table(Path(self.prompts) / "prompts.parquet", f"{len(learner.prompts)} prompts of part `{self.part}`")]
        data += [f"{metrics['responses']:.0f} responses of the policy itself, drawn anew at every iteration"]
        saved = {"title": "PPO policy", "about": about, "data": data, "stage": self, "metrics": metrics}
        save_policy(out, tuned, learner.policy.tokenizer, **saved)
        columns = ("reward", "kl", "beta", "value_loss", "clip_fraction")
        rows = [[i, *(step[name] for name in columns)] for i, step in enumerate(history)]
        self.runtime.table("ppo", ["iteration", *columns], rows)
        self.runtime.metrics(metrics)
