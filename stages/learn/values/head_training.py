"""What a value head is trained on: TD(λ) returns, FUDGE's attribute, the soft value, CD's Bellman target.

Features are the trunk's hidden states, standardised; rewards are z-scored.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from stages.errors import BadInput
from stages.learn.loop.trainer import Module
from stages.learn.values.prefix_losses import bellman_targets, fudge_loss, soft_loss
from stages.learn.values.scalar_head import ValueHead
from stages.learn.values.targets import td_lambda
from stages.learn.values.vocab_head import VocabHead

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float, float], torch.Tensor]


def _td(values: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor, lam: float, eta: float) -> torch.Tensor:
    return 0.5 * (values - td_lambda(values, rewards, lengths, lam)).square()


def _fudge(values: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor, lam: float, eta: float) -> torch.Tensor:
    return fudge_loss(values, (rewards > 0).float()[:, None].expand_as(values))


def _soft(values: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor, lam: float, eta: float) -> torch.Tensor:
    return soft_loss(values, rewards[:, None].expand_as(values), eta)


LOSSES: dict[str, Loss] = {"td_lambda": _td, "fudge": _fudge, "soft": _soft}
"""Loss of every state, (B, S, M), from values (B, S, M), rewards (B, M), the last state's index (B,), λ and η."""

TARGETS = (*LOSSES, "bellman")


class Features(NamedTuple):
    """One rollout of T tokens as heads read it."""

    states: torch.Tensor
    """(T+1, D) states s₀ (last prompt token) … s_T (last response token) at the head's layer."""
    tokens: torch.Tensor
    """(T,) response tokens."""
    final: torch.Tensor | None = None
    """(T+1, D') final hidden states, from which π₀ follows; for the Bellman target alone."""


class HeadTraining(Module):
    """The mean loss over all states of a batch and all rewards; the state after EOS is one of them."""

    def __init__(
        self,
        head: ValueHead | VocabHead,
        features: Sequence[Features],
        rewards: torch.Tensor,
        *,
        target: str,
        lam: float,
        eta: float,
        learning_rate: float,
        weight_decay: float,
        policy: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        # A head over the vocabulary gives s₁ … s_T from the states before them; a scalar one s₀ … s_T.
        self.vocab = isinstance(head, VocabHead)
        weights = [(len(f.tokens) + (0 if self.vocab else 1)) * rewards.shape[1] for f in features]
        super().__init__(weights=weights, learning_rate=learning_rate, weight_decay=weight_decay)
        if target not in TARGETS:
            raise BadInput("target", f"{target!r} is no target; choose one of {', '.join(TARGETS)}")
        if target == "bellman" and not self.vocab:
            raise BadInput(
                "target",
                "CD's Bellman target is an expectation over the vocabulary; it needs head=vocab "
                "(td_lambda=0 bootstraps from the token that was drawn)",
            )
        self.head = head
        self.features, self.rewards = features, rewards  # rewards (N, M)
        self.target, self.lam, self.eta = target, lam, eta
        self.policy = policy

    def loss(self, indices: list[int]) -> torch.Tensor:
        lengths = torch.tensor([len(self.features[i].tokens) for i in indices], device=self.device)  # (B,)
        rewards = self.rewards[indices].to(self.device)  # (B, M)
        hidden = self.hidden(indices)  # (B, T+1, D)
        if isinstance(self.head, VocabHead):
            tokens = self._padded([self.features[i].tokens for i in indices])  # (B, T)
            values, last = self.head.taken(hidden[:, :-1], tokens)[..., None], lengths - 1  # (B, T, 1): s₁ … s_T
        else:
            values, last = self.head(hidden), lengths  # (B, T+1, M)
        each = self._bellman(indices, values, hidden, rewards, lengths) if self.target == "bellman" else None
        losses = LOSSES[self.target](values, rewards, last, self.lam, self.eta) if each is None else each
        return losses[self.trained_states(last, values.shape[1])].sum()

    def trained_states(self, last: torch.Tensor, states: int) -> torch.Tensor:
        """(B, S) which states have a loss, given the index (B,) of each response's last one: all of them. (The authors
        of VAS leave the last one out, and then ask for its value whenever EOS is a candidate.)"""
        return torch.arange(states, device=last.device)[None] <= last[:, None]

    def hidden(self, indices: list[int]) -> torch.Tensor:
        """(B, T+1, D) standardised states, padded."""
        return self._padded([self.features[i].states for i in indices])

    def _bellman(self, indices: list[int], values: Any, hidden: Any, rewards: Any, lengths: Any) -> torch.Tensor:
        """½(V − target)² of s₁ … s_T, (B, T, 1)."""
        assert self.policy is not None
        with torch.no_grad():
            final = self._padded([self.features[i].final for i in indices])  # (B, T+1, D')
            targets = bellman_targets(self.head(hidden), self.policy(final), rewards[:, 0], lengths)  # (B, T+1)
        return 0.5 * (values - targets[:, 1:, None]).square()

    def _padded(self, tensors: Sequence[Any]) -> torch.Tensor:
        return pad_sequence(list(tensors), batch_first=True).to(self.device)
