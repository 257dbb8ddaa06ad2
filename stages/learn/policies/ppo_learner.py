"""PPO's loop in one process (`ppo.py`): draw responses, ask the reward, learn from them, draw again."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.prompts import encode, read_parts
from stages.engine.sampling import Draw
from stages.errors import BadInput
from stages.learn.flops import Cost
from stages.learn.loop.batches import cut, length_batches
from stages.learn.loop.ranks import placed
from stages.learn.loop.trainer import PRECISIONS, machines_of
from stages.learn.loop.watch import WAY_OUT, require_finite
from stages.learn.lora import adapted
from stages.learn.policies.advantages import gae, whiten
from stages.learn.policies.experience import ActorCritic, Experience, RewardedResponse, padded
from stages.learn.policies.ppo_loss import (
    KLCoefficient,
    clipped,
    kl_estimate,
    penalised_rewards,
    policy_loss,
    value_loss,
)
from stages.learn.policies.ppo_settings import PpoSettings
from stages.learn.responses import Exchange, by_length, predict, token_logprobs
from stages.records import Prompt
from stages.reward import scored


class Learner:
    """One process's part of the training."""

    def __init__(self, stage: PpoSettings) -> None:
        self.stage, self.rank, self.world = stage, stage.runtime.rank, stage.runtime.world
        self.machines = machines_of(stage.runtime, stage.trainer)
        self.policy: LoadedLM = CausalLM(Path(stage.base), stage.dtype).load(stage.runtime.device)
        self.prompts: list[Prompt] = read_parts(Path(stage.prompts), [stage.part], "part")
        self.encoded = encode(self.prompts, self.policy, stage.sampling.max_new_tokens)
        self.untouched = Cost(self.policy.model)
        self.adapters = adapted(
            self.policy.model, rank=stage.lora_rank, alpha=stage.lora_alpha, top_layers=stage.top_layers
        )
        self.cost = Cost(self.policy.model)
        self.actor = ActorCritic(self.policy.model, stage.value_width, stage.sampling.temperature)
        self.fabric = Fabric(
            **placed(stage.runtime, DDPStrategy),
            precision=PRECISIONS[stage.trainer.precision],  # type: ignore[arg-type]
        )
        self.fabric.launch()
        adapters = [p for p in self.actor.model.parameters() if p.requires_grad]
        groups = [
            {"params": adapters, "lr": stage.learning_rate},
            {"params": list(self.actor.critic.parameters()), "lr": stage.value_learning_rate},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        self.rates = [group["lr"] for group in groups]
        self.wrapped, self.optimizer = self.fabric.setup(self.actor, optimizer)
        self.coefficient = KLCoefficient(stage.beta, stage.target_kl)
        self.mean, self.sd = 0.0, 0.0
        self.spent = {"rollout_flops": 0.0, "train_flops": 0.0, "train_tokens": 0.0, "rollout_tokens": 0.0}

    def learn(self, done: int = 0) -> Iterator[dict[str, float]]:
        """The figures of every iteration after the first `done`, as it ends."""
        stage = self.stage
        iterations = min(stage.iterations, stage.trainer.max_steps or stage.iterations)
        order = np.random.default_rng(stage.seed).permutation(len(self.prompts))
        for iteration in range(done, iterations):
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * stage.trainer.scale(iteration, iterations)
            places = np.arange(iteration * stage.batch_size, (iteration + 1) * stage.batch_size)
            drawn = self._draw(iteration, [int(order[i % len(order)]) for i in places])
            experience = self._experience(drawn)
            figures = self._improve(experience, iteration)
            for name in ("policy_loss", "value_loss"):
                if not np.isfinite(figures[name]):
                    raise FloatingPointError(f"{name} is {figures[name]} in iteration {iteration + 1}; {WAY_OUT}")
            require_finite(self.actor, "PPO", iteration + 1)
            kl = experience.kl()
            figures |= {"reward": float(np.mean([r.reward for r in drawn])), "kl": kl, "beta": self.coefficient.beta}
            figures["finished"] = float(np.mean([r.finished for r in drawn]))
            self.coefficient.update(kl)
            note = f"reward {figures['reward']:.2f} KL {kl:.2f}"
            stage.runtime.progress(iteration + 1, iterations, note)
            yield figures

    def _draw(self, iteration: int, chosen: Sequence[int]) -> list[RewardedResponse]:
        """One response to each of these prompts by the policy as it is; the same list in every process."""
        stage = self.stage
        mine = list(range(len(chosen)))[self.rank :: self.world]
        # A prompt that comes twice in one batch is two prompts to the engine, whose draws go by their name.
        asked = [(f"{place}/{self.encoded[chosen[place]][0]}", self.encoded[chosen[place]][1]) for place in mine]
        seed = stage.seed * 1_000_003 + iteration

        def told(*now: Any) -> None:
            stage.runtime.progress(iteration, stage.iterations, "drawing responses")

        draw = Draw(stage.sampling, seed, stage.runtime.rows, told)
        responses = Engine(Lanes(self.policy), draw).run(asked, 1)
        prompts = [self.prompts[chosen[place]] for place in mine]
        rewards = scored(stage.reward, prompts, [r.text for r in responses], "reward")
        self.spent["rollout_flops"] += sum(r.flops for r in responses)
        self.spent["rollout_tokens"] += sum(r.tokens for r in responses)
        made = [
            RewardedResponse(list(ids), list(r.token_ids), float(reward), r.finished)
            for (_, ids), r, reward in zip(asked, responses, rewards, strict=True)
        ]
        found: list[RewardedResponse | None] = [None] * len(chosen)
        for rank, theirs in enumerate(self._gathered(made)):
            found[rank :: self.world] = [RewardedResponse(*one) for one in theirs]
        return [one for one in found if one is not None]

    def _gathered(self, mine: list[Any]) -> list[list[Any]]:
        """What every process has, in the order of ranks."""
        if self.world == 1:
            return [mine]
        everything: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(everything, mine)
        return everything

    @torch.no_grad()
    def _experience(self, drawn: list[RewardedResponse]) -> Experience:
        """Log-probabilities, values and advantages; each process computes its share of the forwards."""
        stage = self.stage
        rewards = np.array([r.reward for r in drawn])
        responses = [Exchange(r.prompt, r.response) for r in drawn]
        lengths = [len(r.response) for r in drawn]
        first = self.sd == 0.0
        if first:
            self.mean, self.sd = float(rewards.mean()), float(rewards.std())
            if self.sd <= 1e-9:
                raise BadInput("reward", f"gave {rewards[0]} for all {len(rewards)} responses of π₀; nothing to learn")
        longest = max(lengths)
        tensors = torch.zeros(3, len(drawn), longest)  # log π, log π₀, V
        mine = list(range(len(drawn)))[self.rank :: self.world]
        states = []
        for batch in by_length([responses[i] for i in mine], stage.runtime.rows):
            rows = [mine[i] for i in batch]
            chosen, sizes = [responses[i] for i in rows], [lengths[i] for i in rows]
            predicted = predict(self.actor.model, chosen)
            logprobs = token_logprobs(self.actor.model, predicted, self.actor.temperature)
            with self.adapters.disable_adapter():
                untuned = predict(self.actor.model, chosen)
                reference = token_logprobs(self.actor.model, untuned, self.actor.temperature)
            states += [predicted.states.float().cpu()] if first else []
            for place, flat in enumerate((logprobs, reference, self.actor.value(predicted))):
                tensors[place, rows] = padded(flat, sizes, longest)
            stage.runtime.progress(0, 1, "log-probabilities")
        shared = self._gathered([tensors[:, mine], torch.cat(states) if first else None])
        for rank, (theirs, _) in enumerate(shared):
            tensors[:, rank :: self.world] = theirs
        if first:
            self.actor.standardise(torch.cat([found for _, found in shared]).to(self.actor.centre.device))
        sizes = torch.tensor(lengths)
        scores = torch.from_numpy((rewards - self.mean) / self.sd).float()
        each = penalised_rewards(scores, tensors[0], tensors[1], sizes, self.coefficient.beta)
        advantages, returns = gae(tensors[2], each, sizes, stage.lam)
        found = Experience(responses, scores, sizes, tensors[0], tensors[1], tensors[2], advantages, returns)
        if stage.whitening:
            found.advantages = whiten(advantages, found.mask)
        tokens = [len(e.prompt) + len(e.response) for e in responses]
        self.spent["train_flops"] += 2 * self.untouched.forward(tokens, sum(lengths)) / self.world
        return found

    def _improve(self, experience: Experience, iteration: int) -> dict[str, float]:
        """Minibatch epochs over one iteration's responses. Losses and `moved` (KL from the policy that drew, nats a
        token) are those of the last epoch; `clip_fraction` is the share of clipped tokens over all of them."""
        stage = self.stage
        lengths = experience.lengths.tolist()
        portions = self.world * self.machines.accumulate
        seed = stage.seed * 1_000_003 + iteration
        losses, moved = [0.0, 0.0], 0.0
        epochs, cut_off, tokens = 0, 0.0, 0.0
        for epoch in range(stage.epochs):
            sums = torch.zeros(5, dtype=torch.float64)  # policy loss, value loss, KL, clipped tokens, tokens
            for batch in length_batches(lengths, stage.minibatch, 1, seed * 1000 + epoch):
                parts = cut(batch, lengths, portions)[self.rank :: self.world]
                for place, part in enumerate(parts):
                    last = place == len(parts) - 1
                    with self.fabric.no_backward_sync(self.wrapped, enabled=not last and self.world > 1):
                        sums += self._backward(experience, part.indices, part.scale / len(parts))
                if stage.trainer.clip:
                    self.fabric.clip_gradients(
                        self.wrapped, self.optimizer, max_norm=stage.trainer.clip, error_if_nonfinite=False
                    )  # `learn` names it
                self.optimizer.step()
                self.optimizer.zero_grad()
                stage.runtime.progress(iteration, stage.iterations, "learning")
            everything = self.fabric.all_reduce(sums.to(self.fabric.device), reduce_op="sum")
            assert isinstance(everything, torch.Tensor)
            losses = [float(everything[i] / everything[4]) for i in (0, 1)]
            moved = float(everything[2] / everything[4])
            cut_off, tokens = cut_off + float(everything[3]), tokens + float(everything[4])
            epochs = epoch + 1
            if stage.max_kl and moved > stage.max_kl:
                break
        return {
            "policy_loss": losses[0],
            "value_loss": losses[1],
            "moved": moved,
            "clip_fraction": cut_off / tokens,
            "epochs": float(epochs),
        }

    def _backward(self, experience: Experience, indices: list[int], scale: float) -> torch.Tensor:
        """Adds the gradients of one part. Gives (5,) its summed policy loss, value loss and KL, its clipped tokens and
        all its tokens; 0 for a part that goes along at weight 0."""
        stage, device = self.stage, self.fabric.device
        old, old_values, advantages, returns = (
            experience.flat(tensor, indices).to(device)
            for tensor in (experience.logprobs, experience.values, experience.advantages, experience.returns)
        )
        logprobs, values = self.wrapped([experience.responses[i] for i in indices])  # (N,) each
        surrogate = policy_loss(logprobs, old, advantages, stage.clip).sum()
        value = value_loss(values, old_values, returns, stage.value_clip).sum()
        self.fabric.backward((surrogate + value) * scale)
        tokens = [len(e.prompt) + len(e.response) for e in (experience.responses[i] for i in indices)]
        if scale:
            self.spent["train_flops"] += self.cost.step(tokens, len(logprobs))
            self.spent["train_tokens"] += sum(tokens)
        kl = kl_estimate(logprobs.detach(), old).sum()
        outside = clipped(logprobs.detach(), old, stage.clip).sum()
        counted = [float(surrogate), float(value), float(kl), float(outside), float(len(logprobs))]
        return torch.tensor(counted, dtype=torch.float64) * (scale > 0)

    def metrics(self, history: list[dict[str, float]]) -> dict[str, float]:
        """Of the whole training. FLOPs and tokens of all processes: each does an equal share."""
        spent = {name: value * self.world for name, value in self.spent.items()}
        last = history[-max(1, len(history) // 8) :]
        return spent | {
            "iterations": float(len(history)),
            "responses": float(len(history) * self.stage.batch_size),
            "reward_first": history[0]["reward"],
            "reward_last": float(np.mean([step["reward"] for step in last])),
            "kl_last": float(np.mean([step["kl"] for step in last])),
            "beta_last": history[-1]["beta"],
            "clip_fraction": float(np.mean([step["clip_fraction"] for step in history])),
            "reward_mean": self.mean,
            "reward_sd": self.sd,
        }
