"""Stage: the value model. Reads labelled rollouts, prompts and the frozen base policy; writes `value.json` and
`value.safetensors` (see `value_model.py`).

    tilt run goal=[value]

The policy is its own trunk: one pass gives the hidden state of every prefix, then a small head learns TD(λ) returns
(arXiv 2405.06639) from all states of a response, that after EOS included.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn.utils.rnn import pad_sequence

from stages import records
from stages.errors import BadInput
from stages.language_model import encode_prompt
from stages.learn.batches import length_batches
from stages.learn.hidden import Trunk
from stages.learn.targets import td_lambda
from stages.learn.trainer import Module, Trainer, fit, seeded
from stages.learn.value_model import ValueHead, fingerprint
from stages.records import Labelled, Prompt
from stages.runtime import Runtime


class _Regression(Module):
    """½(V − target)², the mean over all states of a batch and all rewards; targets bootstrap from the head itself."""

    def __init__(
        self,
        head: ValueHead,
        states: list[torch.Tensor],
        rewards: torch.Tensor,
        *,
        lam: float,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        weights = [len(state) * rewards.shape[1] for state in states]
        super().__init__(weights=weights, learning_rate=learning_rate, weight_decay=weight_decay)
        self.head = head
        self.states = states  # (T+1, D) each
        self.rewards = rewards  # (N, M), z-scored
        self.lam = lam

    def loss(self, indices: list[int]) -> torch.Tensor:
        lengths = torch.tensor([len(self.states[i]) - 1 for i in indices], device=self.device)  # (B,)
        hidden = pad_sequence([self.states[i] for i in indices], batch_first=True).to(self.device)  # (B, T+1, D)
        values = self.head(hidden)  # (B, T+1, M)
        targets = td_lambda(values, self.rewards[indices].to(self.device), lengths, self.lam)
        inside = torch.arange(hidden.shape[1], device=self.device)[None] <= lengths[:, None]  # (B, T+1)
        return 0.5 * (values - targets).square()[inside].sum()


@dataclass
class TrainValue:
    """A value head of M rewards on one layer of the frozen policy."""

    labels: Path
    """Payload of stage `labels`."""
    prompts: Path
    """Payload of stage `prompts`."""
    policy: Path
    """Folder of π₀: the rollouts' policy and the head's trunk."""
    rewards: list[str] = field(default_factory=lambda: ["proxy"])
    """Reward columns to learn, one output each."""
    layer: int = 20
    """Index into the policy's hidden states; 0 is the embeddings."""
    td_lambda: float = 0.95
    """λ of the returns, 0 to 1; 1 is Monte Carlo."""
    head: str = "mlp"
    """`mlp` with one hidden layer, or `linear`; both read one hidden state."""
    width: int = 256
    """Size of the hidden layer of `mlp`."""
    learning_rate: float = 1e-3
    batch_size: int = 16
    """Responses in one optimiser step."""
    epochs: float = 10.0
    weight_decay: float = 0.01
    heldout: float = 0.1
    """Share of the prompts whose rollouts only measure."""
    dtype: str = "bfloat16"
    """Of the trunk; decoding must use the same."""
    seed: int = 0
    trainer: Trainer = field(default_factory=Trainer)
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput on an unknown layer or head, a missing, constant or not finite reward, or too few prompts."""
        if not 0 <= self.td_lambda <= 1:
            raise BadInput("td_lambda", f"{self.td_lambda} is not between 0 and 1")
        rollouts, prompts = self._read()
        rewards = self._rewards(rollouts)  # (N, M) float64
        train, heldout = self._split(rollouts)
        trunk = Trunk(Path(self.policy), layer=self.layer, dtype=self.dtype, device=self.runtime.device, field="policy")
        states = self._states(trunk, rollouts, prompts)  # (T+1, D) each
        features = torch.cat([states[i] for i in train])  # (states, D)
        centre, spread = features.mean(0), features.std(0) + 1e-6
        del features
        for index, state in enumerate(states):
            states[index] = (state - centre) / spread

        mean, sd = rewards[train].mean(0), rewards[train].std(0)  # (M,)
        if constant := [name for name, deviation in zip(self.rewards, sd, strict=True) if deviation <= 1e-9]:
            raise BadInput("labels", f"reward {constant[0]!r} has one value on all training rollouts; nothing to learn")
        scores = torch.from_numpy((rewards - mean) / sd).float()  # (N, M)
        with seeded(self.seed):
            model = ValueHead(
                size=trunk.size,
                rewards=self.rewards,
                layer=self.layer,
                head=self.head,
                width=self.width,
                trunk=fingerprint(Path(self.policy)),
            )
            batches = length_batches([len(states[i]) for i in train], self.batch_size, self.epochs, self.seed)
            training = _Regression(
                model,
                [states[i] for i in train],
                scores[train],
                lam=self.td_lambda,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
            )
            fit(training, batches, self.runtime, "value loss", trainer=self.trainer)
        model = model.cpu().eval()
        metrics = heldout_quality(model, [states[i] for i in heldout], scores[heldout], self.rewards)
        model.fold(centre, spread)
        model.mean.copy_(torch.from_numpy(mean))
        model.sd.copy_(torch.from_numpy(sd))
        model.save(out)
        truncated = float(np.mean([not r.finished for r in rollouts]))
        self.runtime.metrics(
            metrics | {"rollouts": float(len(train)), "heldout_rollouts": float(len(heldout)), "truncated": truncated}
        )

    def _read(self) -> tuple[list[Labelled], dict[str, Prompt]]:
        rollouts = records.read(Path(self.labels) / "labels.parquet", Labelled)
        if not rollouts:
            raise BadInput("labels", "there are no labelled rollouts to learn from")
        prompts = {p.id: p for p in records.read(Path(self.prompts) / "prompts.parquet", Prompt)}
        if missing := [r.prompt_id for r in rollouts if r.prompt_id not in prompts]:
            raise BadInput("prompts", f"prompt {missing[0]!r} has rollouts but is not among the prompts")
        return rollouts, prompts

    def _rewards(self, rollouts: list[Labelled]) -> np.ndarray:
        """(N, M) float64."""
        if not self.rewards:
            raise BadInput("rewards", "no reward is named; give at least one of the labels' columns")
        there = rollouts[0].rewards
        for name in self.rewards:
            if name not in there:
                names = ", ".join(there) or "none"
                raise BadInput("rewards", f"the labels have no reward {name!r}; they have: {names}")
        columns = np.array([[r.rewards[name] for name in self.rewards] for r in rollouts], dtype=np.float64)
        if not np.isfinite(columns).all():
            row, column = np.argwhere(~np.isfinite(columns))[0]
            bad = rollouts[row]
            raise BadInput(
                "labels",
                f"reward {self.rewards[column]!r} is {columns[row, column]} for sample {bad.sample} of prompt "
                f"{bad.prompt_id!r}; label the rollouts again with a reward that is a number for every text",
            )
        return columns

    def _split(self, rollouts: list[Labelled]) -> tuple[list[int], list[int]]:
        """Indices of training and held-out rollouts; no prompt is in both."""
        ids = sorted({r.prompt_id for r in rollouts})
        if len(ids) < 2:
            raise BadInput("labels", "all rollouts answer one prompt; at least two are needed, one to measure on")
        if not 0 < self.heldout < 1:
            raise BadInput("heldout", f"{self.heldout} is no share between 0 and 1; some prompts must measure")
        kept = min(len(ids) - 1, max(1, round(self.heldout * len(ids))))
        chosen = {ids[i] for i in np.random.default_rng(self.seed).permutation(len(ids))[:kept]}
        train = [i for i, r in enumerate(rollouts) if r.prompt_id not in chosen]
        return train, [i for i, r in enumerate(rollouts) if r.prompt_id in chosen]

    def _states(self, trunk: Trunk, rollouts: list[Labelled], prompts: dict[str, Prompt]) -> list[torch.Tensor]:
        """States s₀ (last prompt token) … s_T (last response token) of every rollout, (T+1, D) fp32 on the CPU."""
        starts = {name: encode_prompt(trunk.tokenizer, prompts[name]) for name in {r.prompt_id for r in rollouts}}
        sequences = [starts[r.prompt_id] + list(r.token_ids) for r in rollouts]
        states: list[torch.Tensor] = [torch.empty(0)] * len(rollouts)
        for done, (index, hidden) in enumerate(trunk.states(sequences, self.runtime.rows), 1):  # (S, D)
            states[index] = hidden[len(starts[rollouts[index].prompt_id]) - 1 :].clone()
            if done % self.runtime.rows == 0 or done == len(rollouts):
                self.runtime.progress(done, len(rollouts), "rollouts read")
        return states


def heldout_quality(
    model: ValueHead, states: list[torch.Tensor], scores: torch.Tensor, names: list[str]
) -> dict[str, float]:
    """How well values foretell the final reward, at the start (s₀), middle (s at ⌊T/2⌋) and end (s_T) of responses.

    `explained_variance` is 1 − Var(r − V) / Var(r), over all states and by position; `rank_correlation` is Spearman's,
    nan where values or rewards are all the same. Several rewards get their name before each figure.

    Args:
        states: standardised states, (T+1, D) each.
        scores: (N, M) z-scored rewards.
    """
    with torch.inference_mode():
        values = [model(state).double().numpy() for state in states]  # (T+1, M) each
    found: dict[str, float] = {}
    for column, name in enumerate(names):
        prefix = f"{name}_" if len(names) > 1 else ""
        reward = scores[:, column].double().numpy()  # (N,)
        everywhere = np.concatenate([v[:, column] for v in values])
        repeated = np.repeat(reward, [len(v) for v in values])
        found[f"{prefix}explained_variance"] = _explained(everywhere, repeated)
        for place, share in (("start", 0.0), ("middle", 0.5), ("end", 1.0)):
            there = np.array([v[int(share * (len(v) - 1)), column] for v in values])  # (N,)
            found[f"{prefix}explained_variance_{place}"] = _explained(there, reward)
            alike = len(np.unique(there)) < 2 or len(np.unique(reward)) < 2
            rank = float("nan") if alike else float(spearmanr(there, reward).statistic)  # type: ignore[attr-defined]
            found[f"{prefix}rank_correlation_{place}"] = rank
    return found


def _explained(values: np.ndarray, rewards: np.ndarray) -> float:
    variance = float(rewards.var())
    return 1 - float((rewards - values).var()) / variance if variance > 0 else float("nan")
