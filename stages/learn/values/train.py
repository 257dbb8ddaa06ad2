"""Stage: the value model. Reads labelled rollouts, prompts and π₀; writes `value.json` and `value.safetensors`
(`scalar_head.py`, `vocab_head.py`), a model card, and `model/` where the value has a trunk of its own.

    tilt run goal=[value]

The value of a prefix is read by a head from one hidden state of a trunk. The trunk is π₀ itself, frozen, or another
small model; with LoRA it is trained too. The head learns from every state of a response, the one after EOS included.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.engine.head import Head, require_known_head
from stages.engine.language_model import load_model, load_tokenizer
from stages.engine.prompts import encode_prompt, require_room
from stages.errors import BadInput
from stages.learn.cards import model_card, rollouts_table
from stages.learn.flops import training_flops
from stages.learn.labels import read_labels, reward_columns, split_prompts, spread
from stages.learn.loop.batches import length_batches
from stages.learn.loop.trainer import Trainer, fit, machines_of, seeded
from stages.learn.trunk import Trunk
from stages.learn.values.head import new_head
from stages.learn.values.head_training import HeadTraining
from stages.learn.values.quality import heldout_quality, values_of
from stages.learn.values.scalar_head import fingerprint
from stages.learn.values.states import AdaptedStates, Features, KeptStates, Standard, States, read_features
from stages.learn.values.targets import Distribution, Settings, target_named
from stages.records import Labelled, Prompt
from stages.runtime import Runtime
from stages.training_cost import rollouts_cost, write_cost


@dataclass
class TrainValue:
    """A value head of M rewards on one layer of a trunk."""

    labels: Path
    """Payload of stage `labels`."""
    prompts: Path
    """Payload of stage `prompts`."""
    base: Path
    """Folder of π₀, which drew the rollouts; without `model` it is the head's trunk too."""
    rewards: list[str] = field(default_factory=lambda: ["proxy"])
    """Reward columns to learn, one output each; a head over the vocabulary learns one."""
    model: Path | None = None
    """Folder of another language model with π₀'s tokenizer, to be the trunk."""
    layer: int = 20
    """Index into the trunk's hidden states; 0 is the embeddings."""
    target: str = "td_lambda"
    """`td_lambda`; `fudge`: is the reward above the mean; `bellman`: CD's, for head `vocab`; `soft`: the value of the
    KL-optimal policy, which is not VAS."""
    td_lambda: float = 0.95
    """λ of the returns, 0 to 1; 1 is Monte Carlo."""
    eta: float = 1.0
    """η of the soft value, in standard deviations of the reward: use it with β = 1/η."""
    temperature: float = 0.9
    """At which the rollouts were drawn; the Bellman target's expectation is taken at it, without truncation."""
    head: str = "mlp"
    """`mlp` with one hidden layer or `linear`, one state's value; `vocab`: values of all next tokens, linear."""
    width: int = 256
    """Size of the hidden layer of `mlp`."""
    lora_rank: int = 0
    """0: the trunk is frozen. Else it is trained too, and saved as the value's own model."""
    lora_alpha: int = 16
    top_layers: int = 0
    """With LoRA: how many layers below `layer` get an adapter; 0: all of them."""
    learning_rate: float = 1e-3
    batch_size: int = 16
    """Responses in one optimiser step."""
    epochs: float = 10.0
    weight_decay: float = 0.01
    heldout: float = 0.1
    """Share of the prompts whose rollouts only measure; 0: none."""
    allow_truncated: bool = False
    """Learn even where every rollout was cut at the token limit."""
    dtype: str = "bfloat16"
    """Of the trunk; decoding must use the same."""
    seed: int = 0
    trainer: Trainer = field(default_factory=Trainer)
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput on an unknown layer, head or target, a missing, constant or not finite reward, rollouts that
        all were cut, or a trunk with another vocabulary."""
        self._check()
        rollouts, prompts = read_labels(self.labels, self.prompts, self.allow_truncated)
        rewards = reward_columns(rollouts, self.rewards, "rewards")  # (N, M) float64
        held = split_prompts([r.prompt_id for r in rollouts], self.heldout, self.seed)
        train = [i for i, r in enumerate(rollouts) if r.prompt_id not in held]
        measured = [i for i, r in enumerate(rollouts) if r.prompt_id in held]
        mean, sd = spread(rewards[train], self.rewards)  # (M,)
        scores = torch.from_numpy((rewards - mean) / sd).float()  # (N, M)
        trunk = self._trunk()
        starts, sequences = self._sequences(trunk, rollouts, prompts)
        features = self._features(trunk, starts, sequences)
        standard = Standard.of([features[i] for i in train])
        standard.apply(features)
        with seeded(self.seed):
            head = new_head(
                self.head,
                size=trunk.size,
                vocabulary=int(trunk.model.config.vocab_size),
                rewards=self.rewards,
                width=self.width,
                layer=self.layer,
                dtype=self.dtype,
                target=self.target,
            )
            batches = length_batches([len(sequences[i]) for i in train], self.batch_size, self.epochs, self.seed)
            batches = [[train[i] for i in batch] for batch in batches]
            states = self._states(trunk, starts, sequences, features, standard)
            target = target_named(self.target).of(Settings(self.td_lambda, self.eta, self._distribution))
            rates = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
            training = HeadTraining(head, states, features, scores, target, **rates)
            trained = fit(training, batches, self.runtime, "value loss", trainer=self.trainer, heldout=measured)
        if self.runtime.rank:
            return
        lengths = [len(s) for s in sequences]
        flops = training_flops(trunk.model, head, lengths, [lengths[i] for i in trained.examples])
        if states.settle():
            features = self._features(trunk, starts, sequences)
            standard.apply(features)
        head = head.cpu().eval()
        values = values_of(head, [features[i] for i in measured])
        metrics = heldout_quality(values, scores[measured], self.rewards) if measured else {}
        head.fold(*standard)
        head.mean.copy_(torch.from_numpy(mean))
        head.sd.copy_(torch.from_numpy(sd))
        head.trunk = self._save_trunk(out, trunk)
        head.save(out)
        metrics |= {
            "rollouts": float(len(train)),
            "heldout_rollouts": float(len(measured)),
            "truncated": float(np.mean([not r.finished for r in rollouts])),
            "steps": float(trained.steps),
            "train_tokens": float(sum(lengths[i] for i in (trained.examples if self.lora_rank else train))),
            "train_flops": flops,
        } | rollouts_cost(self.labels)
        about = (
            f"Values of {', '.join(self.rewards)} ({self.target}) from hidden state {self.layer} of "
            f"{'a model of its own (`model/`)' if (out / 'model').is_dir() else 'π₀'}; open it with "
            "`stages.learn.values.load.load_value(folder, base)`. "
            + ("This is not the value of VAS but that of the KL-optimal policy." if self.target == "soft" else "")
        )
        data = [rollouts_table(self.labels, rollouts, len(held))]
        (out / "README.md").write_text(model_card("Value model", about, data, self, metrics), encoding="utf-8")
        write_cost(out, "Value model", metrics)
        self.runtime.metrics(metrics)

    def _check(self) -> None:
        if not 0 <= self.td_lambda <= 1:
            raise BadInput("td_lambda", f"{self.td_lambda} is not between 0 and 1")
        target = target_named(self.target)
        for name in ("eta", "temperature"):
            if not getattr(self, name) > 0:
                raise BadInput(name, f"{getattr(self, name)} is not positive")
        if self.head == "vocab" and len(self.rewards) != 1:
            raise BadInput("rewards", f"a head over the vocabulary learns one reward, not {len(self.rewards)}")
        if self.lora_rank < 0:
            raise BadInput("lora_rank", f"{self.lora_rank} is negative; 0 freezes the trunk")
        if target.final_states and (self.lora_rank or self.model is not None):
            raise BadInput("target", f"{self.target} needs π₀'s own frozen trunk; leave out model and lora_rank")
        machines_of(self.runtime, self.trainer)

    def _trunk(self) -> Trunk:
        """The model that the head reads. Raises BadInput where its tokens are not π₀'s."""
        where, name = (Path(self.base), "base") if self.model is None else (Path(self.model), "model")
        if self.model is not None:
            theirs, ours = (load_tokenizer(Path(p), n) for p, n in ((self.model, "model"), (self.base, "base")))
            if theirs.get_vocab() != ours.get_vocab():
                raise BadInput("model", f"{where} has another vocabulary than {self.base}, whose tokens it would read")
        keep = target_named(self.target).final_states
        return Trunk(where, layer=self.layer, dtype=self.dtype, device=self.runtime.device, field=name, whole=keep)

    def _sequences(
        self, trunk: Trunk, rollouts: list[Labelled], prompts: dict[str, Prompt]
    ) -> tuple[list[int], list[list[int]]]:
        """Of every rollout the prompt's length and all tokens. Raises BadInput where they exceed the trunk's context:
        another model's may be smaller, or its chat template longer, than those of π₀."""
        encoded = {name: encode_prompt(trunk.tokenizer, prompts[name]) for name in {r.prompt_id for r in rollouts}}
        longest = max(rollouts, key=lambda r: len(encoded[r.prompt_id]) + len(r.token_ids))
        lengths = {longest.prompt_id: len(encoded[longest.prompt_id])}
        field = "base" if self.model is None else "model"
        require_room(lengths, trunk.model, len(longest.token_ids), field)
        return [len(encoded[r.prompt_id]) for r in rollouts], [encoded[r.prompt_id] + r.token_ids for r in rollouts]

    def _features(self, trunk: Trunk, starts: list[int], sequences: list[list[int]]) -> list[Features]:
        rows, progress = self.runtime.rows, self.runtime.progress
        return read_features(trunk, starts, sequences, dtype=self.dtype, rows=rows, progress=progress)

    def _states(
        self,
        trunk: Trunk,
        starts: list[int],
        sequences: list[list[int]],
        features: list[Features],
        standard: Standard,
    ) -> States:
        if not self.lora_rank:
            return KeptStates(features)
        lora = {"rank": self.lora_rank, "alpha": self.lora_alpha, "top_layers": self.top_layers}
        return AdaptedStates(trunk, starts, sequences, standard, **lora)

    def _distribution(self) -> Distribution:
        """π₀'s next-token probabilities (…, V) from its final hidden states (…, D), at the temperature of the draws."""
        lm = load_model(Path(self.base), dtype=self.dtype, device=self.runtime.device, field="base")
        require_known_head(lm, "base")
        head = Head.of(lm)
        return lambda final: (head(final).float() / self.temperature).softmax(-1)

    def _save_trunk(self, out: Path, trunk: Trunk) -> str:
        """The trunk's fingerprint, after it was saved beside the head where it is not π₀ itself."""
        if self.model is None and not self.lora_rank:
            return fingerprint(Path(self.base))
        source = Path(self.base if self.model is None else self.model)
        if self.lora_rank:
            whole: Any = load_model(source, dtype=self.dtype, device=self.runtime.device)
            whole.base_model.load_state_dict(trunk.model.state_dict(), strict=False)  # the layers above stay
            whole.save_pretrained(out / "model")
            trunk.tokenizer.save_pretrained(out / "model")
        else:
            shutil.copytree(source, out / "model")
        return fingerprint(out / "model")
