"""The training of a value head: the mean loss of its target over all states of a batch.

Rewards are z-scored; `states.py` says where states come from, `targets.py` what a value may be trained on.
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from stages.learn.loop.trainer import Module
from stages.learn.values.head import ValueModel
from stages.learn.values.states import Features, States
from stages.learn.values.targets import Batch, Target


class HeadTraining(Module):
    """The mean loss over all states of a batch and all rewards; the state after EOS is one of them."""

    def __init__(
        self,
        head: ValueModel,
        states: States,
        features: Sequence[Features],
        rewards: torch.Tensor,
        target: Target,
        *,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        """`rewards` (N, M), a row for each of `features`. Raises BadInput where the head cannot learn the target."""
        terms = [(len(f.tokens) + 1 - head.first_state) * rewards.shape[1] for f in features]
        super().__init__(terms=terms, learning_rate=learning_rate, weight_decay=weight_decay)
        target.check(head.over_vocabulary)
        self.head = head
        self.states = states  # where it is a module, its parameters are trained too
        self.features, self.rewards = features, rewards
        self.target = target

    def loss(self, indices: list[int]) -> torch.Tensor:
        lengths = torch.tensor([len(self.features[i].tokens) for i in indices], device=self.device)  # (B,)
        hidden = self.states.of(indices, self.device)  # (B, T+1, D)
        tokens = self._padded([self.features[i].tokens for i in indices])  # (B, T)
        values, last = self.head.along(hidden, tokens), lengths - self.head.first_state  # (B, S, M), (B,)
        losses = self.target.losses(
            Batch(
                values,
                self.rewards[indices].to(self.device),
                last,
                next_values=lambda: self.head(hidden),
                final_states=lambda: self._padded([self.features[i].final for i in indices]),
            )
        )
        return losses[self.trained_states(last, values.shape[1])].sum()

    def trained_states(self, last: torch.Tensor, states: int) -> torch.Tensor:
        """(B, S) which states have a loss, given where each response's last one stands, (B,): all of them. (The authors
        of VAS leave the last one out, and then ask for its value whenever EOS is a candidate.)"""
        return torch.arange(states, device=last.device)[None] <= last[:, None]

    def _padded(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return pad_sequence(list(tensors), batch_first=True).to(self.device)
