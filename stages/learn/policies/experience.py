"""What one iteration of PPO learns from, and the model that learns: policy (actor) and value head (critic)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.learn.responses import Exchange, Predicted, predict, token_logprobs
from stages.learn.values.scalar_head import ValueHead


class RewardedResponse(NamedTuple):
    """A response of the policy as it stood when it was drawn, with its reward."""

    prompt: list[int]
    response: list[int]
    reward: float
    """In the reward's own unit."""
    finished: bool


class ActorCritic(nn.Module):
    """The policy with its adapters, and a value head on its final hidden states.

    The value head's loss does not reach the policy: no gradient goes through the states that it reads.
    """

    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(self, model: PreTrainedModel, width: int, temperature: float) -> None:
        super().__init__()
        self.model = model
        size = int(model.config.hidden_size)
        self.critic = ValueHead(
            size=size, rewards=["reward"], layer=int(model.config.num_hidden_layers), head="mlp", width=width
        )
        self.temperature = temperature
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    def forward(self, batch: Sequence[Exchange]) -> tuple[torch.Tensor, torch.Tensor]:
        """(N,) log π of the response tokens, row by row, and (N,) values of the states in which they were drawn."""
        predicted = predict(self.model, batch)
        return token_logprobs(self.model, predicted, self.temperature), self.value(predicted)

    def value(self, predicted: Predicted) -> torch.Tensor:
        """(N,) values of the states in which the tokens were drawn."""
        features = (predicted.states.detach().float() - self.centre) / self.spread  # (N, D)
        return self.critic(features)[:, 0]

    @torch.no_grad()
    def standardise(self, states: torch.Tensor) -> None:
        """From now on the critic reads states less the mean of these, over their deviation; (N, D) states of π₀."""
        self.centre.copy_(states.float().mean(0))
        self.spread.copy_(states.float().std(0) + 1e-6)


@dataclass
class Experience:
    """The B responses of one iteration, padded with 0 to the T tokens of the longest."""

    responses: list[Exchange]
    scores: torch.Tensor
    """(B,) rewards, z-scored by those of π₀."""
    lengths: torch.Tensor
    """(B,) tokens."""
    logprobs: torch.Tensor
    """(B, T) log π of the tokens when they were drawn."""
    reference: torch.Tensor
    """(B, T) log π₀."""
    values: torch.Tensor
    """(B, T) V(sₜ) when they were drawn."""
    advantages: torch.Tensor
    """(B, T) of the tokens (`advantages.gae`), whitened where the stage says so."""
    returns: torch.Tensor
    """(B, T) what the critic learns."""

    @property
    def mask(self) -> torch.Tensor:
        """(B, T) whether there is a token."""
        return torch.arange(self.logprobs.shape[1])[None] < self.lengths[:, None]

    def kl(self) -> float:
        """Mean over the responses of log π(y|x) − log π₀(y|x), nats."""
        return float((self.logprobs - self.reference).sum(dim=1).mean())

    def flat(self, tensor: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
        """(N,) the entries of a (B, T) tensor that belong to tokens of these responses, in the order in which
        `ActorCritic.forward` gives them."""
        chosen = list(indices)
        return tensor[chosen][self.mask[chosen]]


def padded(flat: torch.Tensor, lengths: Sequence[int], longest: int) -> torch.Tensor:
    """(b, T) rows of `lengths` entries from (N,) entries one after the other."""
    found = torch.zeros(len(lengths), longest)
    for row, entries in enumerate(flat.float().cpu().split(list(lengths))):
        found[row, : len(entries)] = entries
    return found
