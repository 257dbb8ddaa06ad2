"""The hidden states that a value head learns from: read once from a frozen trunk, or anew in every step from a trunk
that is trained along with the head.

Both kinds are standardised with the mean and deviation of the training states.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from stages.learn.lora import adapted
from stages.learn.trunk import Trunk, padded


class Features(NamedTuple):
    """One rollout of T tokens as heads read it."""

    states: torch.Tensor
    """(T+1, D) states s₀ (last prompt token) … s_T (last response token) at the head's layer."""
    tokens: torch.Tensor
    """(T,) response tokens."""
    final: torch.Tensor
    """(T+1, D') final hidden states of the trunk, from which π₀ follows; D' = 0 where they were not kept."""


def read_features(
    trunk: Trunk,
    starts: Sequence[int],
    sequences: Sequence[Sequence[int]],
    *,
    dtype: str,
    rows: int,
    progress: Callable[[int, int, str], None],
) -> list[Features]:
    """The states of every rollout, fp32 on the CPU; final states in `dtype`, the trunk's own.

    Args:
        starts: prompt's tokens of each rollout.
        sequences: prompt and response tokens of each rollout.
        rows: sequences that go through the trunk together.
    """
    found: list[Features | None] = [None] * len(sequences)
    for done, (index, hidden) in enumerate(trunk.states(sequences, rows), 1):  # (S, D)
        at = starts[index]
        tokens = torch.tensor(sequences[index][at:])
        states, final = hidden.split([trunk.size, hidden.shape[1] - trunk.size], dim=1)
        found[index] = Features(states[at - 1 :].clone(), tokens, final[at - 1 :].to(getattr(torch, dtype)))
        if done % rows == 0 or done == len(sequences):
            progress(done, len(sequences), "rollouts read")
    return [f for f in found if f is not None]


class Standard(NamedTuple):
    """How states are standardised."""

    centre: torch.Tensor
    """(D,) mean."""
    scale: torch.Tensor
    """(D,) deviation."""

    @classmethod
    def of(cls, features: Sequence[Features]) -> "Standard":
        states = torch.cat([f.states for f in features])  # (states, D)
        return cls(states.mean(0), states.std(0) + 1e-6)

    def apply(self, features: Sequence[Features]) -> None:
        """Standardises the states in place."""
        for f in features:
            f.states.sub_(self.centre).div_(self.scale)


class States(Protocol):
    """Where a training gets its states from."""

    def of(self, indices: Sequence[int], device: torch.device) -> torch.Tensor:
        """(B, T+1, D) standardised states of these rollouts, padded."""
        ...

    def settle(self) -> bool:
        """Called when the training is over. True: the trunk has changed, so its states have to be read again."""
        ...


class KeptStates:
    """Of a frozen trunk: read once."""

    def __init__(self, features: Sequence[Features]) -> None:
        self.features = features

    def of(self, indices: Sequence[int], device: torch.device) -> torch.Tensor:
        return pad_sequence([self.features[i].states for i in indices], batch_first=True).to(device)

    def settle(self) -> bool:
        return False


class AdaptedStates(nn.Module):
    """Of a trunk with LoRA on the layers below the state that the head reads: computed in every step.

    Being a module, it hands its adapters to the optimiser of the training that holds it.
    """

    def __init__(
        self,
        trunk: Trunk,
        starts: Sequence[int],
        sequences: Sequence[Sequence[int]],
        standard: Standard,
        *,
        rank: int,
        alpha: int,
        top_layers: int,
    ) -> None:
        super().__init__()
        self.layer, self.starts, self.sequences, self.standard = trunk.layer, starts, sequences, standard
        self.adapters = adapted(trunk.model, rank=rank, alpha=alpha, top_layers=top_layers, layers=trunk.layer)

    def of(self, indices: Sequence[int], device: torch.device) -> torch.Tensor:
        ids, mask = padded([self.sequences[i] for i in indices], device)
        output: Any = self.adapters(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        states = output.hidden_states[self.layer].float()  # (B, S, D)
        states = (states - self.standard.centre.to(device)) / self.standard.scale.to(device)
        chosen = [state[self.starts[i] - 1 : len(self.sequences[i])] for i, state in zip(indices, states, strict=True)]
        return pad_sequence(chosen, batch_first=True)  # (B, T+1, D)

    def settle(self) -> bool:
        """Adds the adapters to the trunk's weights: it is an ordinary model again, and not the one it was."""
        dtype = next(p.dtype for p in self.adapters.parameters() if not p.requires_grad)
        self.adapters.to(torch.float32).merge_and_unload().to(dtype).requires_grad_(False)
        return True
