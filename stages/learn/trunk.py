"""A frozen language model up to the layer whose hidden states are read, by probes and by value heads.

The layers above are removed, so that nothing is computed in vain. Sequences are sorted by length and padded on the
right under a causal mask, so a state is the same whatever shares its batch, up to rounding.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from stages.engine.language_model import load_model, load_tokenizer
from stages.errors import BadInput
from stages.learn.flops import reading_flops


class Trunk:
    """A causal LM up to `layer`, an index into `hidden_states`: 0 embeddings, n after the last layer's final norm."""

    def __init__(
        self, folder: Path, *, layer: int, dtype: str, device: str, field: str = "model", whole: bool = False
    ) -> None:
        self.tokenizer = load_tokenizer(folder, field)
        model: Any = load_model(folder, dtype=dtype, device=device, field=field).base_model
        layers = int(model.config.num_hidden_layers)
        if not 0 <= layer <= layers:
            raise BadInput("layer", f"{layer} is no layer of {folder}; it has hidden states 0 to {layers}")
        self.layer = layer
        self.whole = whole
        """Keep the layers above too, and give their last state beside the one that is read."""
        self.size = int(model.config.hidden_size)
        self.layers = layers if whole else min(layer + 1, layers)
        """How many of the model's layers run."""
        self.device = device
        # One layer more than is read: the very last entry of `hidden_states` has gone through the final norm.
        for module in model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == layers:
                del module[self.layers :]
        self.model = model

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that stands alone, behind BOS (or EOS): so an empty text has a state too."""
        tokenizer = self.tokenizer
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        ids = cast(list[int], tokenizer(text, add_special_tokens=False)["input_ids"])
        return [cast(int, start), *ids]

    def flops(self, lengths: Sequence[int]) -> np.ndarray:
        """(N,) float64 FLOPs of reading sequences of these lengths."""
        return reading_flops(self.model, self.layers, lengths)

    @torch.no_grad()
    def states(self, sequences: Sequence[Sequence[int]], rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields (index, states) of every sequence, shortest first; states are (its length, D), fp32, on the CPU."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            ids, mask = padded([sequences[i] for i in batch], self.device)
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                output_hidden_states=True,
                use_cache=False,
            )
            hidden = output.hidden_states[self.layer].float().cpu()  # (b, S, D)
            if self.whole:
                hidden = torch.cat([hidden, output.last_hidden_state.float().cpu()], dim=2)  # (b, S, 2·D)
            for row, index in enumerate(batch):
                yield index, hidden[row, : len(sequences[index])].clone()


def padded(sequences: Sequence[Sequence[int]], device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, (b, S) each, padded on the right with an id that is masked."""
    ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)
