"""A value head trained together with its trunk: LoRA on the layers below the state that the head reads."""

from collections.abc import Sequence
from typing import Any

import torch

from stages.learn.adapt import adapted
from stages.learn.hidden import Trunk, padded
from stages.learn.values.training import HeadTraining


class AdaptedTraining(HeadTraining):
    """As `HeadTraining`, but states are computed anew in every step."""

    def __init__(
        self,
        training: HeadTraining,
        trunk: Trunk,
        sequences: Sequence[Sequence[int]],
        starts: Sequence[int],
        centre: torch.Tensor,
        scale: torch.Tensor,
        adapters: dict[str, int],
    ) -> None:
        super().__init__(
            training.head,
            training.features,
            training.rewards,
            target=training.target,
            lam=training.lam,
            eta=training.eta,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
        )
        self.layer, self.sequences, self.starts = trunk.layer, sequences, starts
        self.centre, self.scale = centre, scale
        self.adapters = adapted(trunk.model, **adapters, layers=trunk.layer)

    def hidden(self, indices: list[int]) -> torch.Tensor:
        ids, mask = padded([self.sequences[i] for i in indices], self.device)
        output: Any = self.adapters(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        states = output.hidden_states[self.layer].float()  # (B, S, D)
        states = (states - self.centre.to(self.device)) / self.scale.to(self.device)
        chosen = [state[self.starts[i] - 1 : len(self.sequences[i])] for i, state in zip(indices, states, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)  # (B, T+1, D)

    def merge(self) -> None:
        """Adds the adapters to the trunk's weights; the trunk is an ordinary model again."""
        dtype = next(p.dtype for p in self.adapters.parameters() if not p.requires_grad)
        self.adapters.to(torch.float32).merge_and_unload().to(dtype).requires_grad_(False)
