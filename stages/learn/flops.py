"""FLOPs of a transformer that reads whole sequences: of a forward pass, and of training a part of the model."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn


def layer_lists(model: Any, count: int) -> list[nn.ModuleList]:
    """The lists that hold a model's `count` layers: one, but in rare architectures."""
    return [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]


def attention_per_layer(config: Any) -> int:
    """FLOPs of one (token, attended position) pair in one layer: 4·heads·head size."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 4 * config.num_attention_heads * size


def sequence_flops(weights: int, attention: int, length: int, *, causal: bool = True) -> int:
    """Of one forward over a sequence: 2 for each weight and token, and `attention` for each pair of a token and a
    position that it attends to. A token attends to itself and those before it; in an encoder (not `causal`) to all.

    Args:
        weights: of all layers together.
        attention: FLOPs of one pair in all layers together.
        length: tokens.

    Example: 10 weights, 3 a pair, 4 tokens → 2·10·4 + 3·(1 + 2 + 3 + 4) = 110; an encoder: 80 + 3·4·4 = 128.
    """
    pairs = length * (length + 1) // 2 if causal else length * length
    return 2 * weights * length + attention * pairs


def reading_flops(model: Any, layers: int, lengths: Iterable[int], *, causal: bool = True) -> np.ndarray:
    """(N,) float64 FLOPs of one forward of the model's `layers` layers over sequences of these lengths.

    The language-model head, the embeddings (look-ups) and norms outside the layers are left out. Where the model keeps
    its layers in no list, all its weights count.
    """
    stack: nn.Module = (*layer_lists(model, layers), model)[0]
    weights = sum(p.numel() for p in stack.parameters())
    attention = attention_per_layer(model.config) * layers
    return np.array([sequence_flops(weights, attention, n, causal=causal) for n in lengths], dtype=np.float64)


class Cost:
    """What training a causal LM costs. A weight takes 2 FLOPs a token in the forward pass, 2 for the gradient of its
    input, and 2 for its own gradient where it is trained.

    Gradients go back to the lowest trained layer and no further. The language-model head counts at the positions that
    need logits. Attention adds 4·heads·head size for each layer and each pair of a token and a position that it attends
    to. The input embedding is a look-up and costs nothing.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        layers = layer_lists(model, config.num_hidden_layers)[0]
        sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
        touched = [i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())]
        below = any(p.requires_grad for p in model.get_input_embeddings().parameters())
        fork = 0 if below else touched[0] if touched else len(sizes)
        self.trunk, self.above = sum(sizes), sum(sizes[fork:])
        self.trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.head = sum(p.numel() for p in model.get_output_embeddings().parameters())
        self.pair = attention_per_layer(config)
        self.layers, self.layers_above = len(sizes), len(sizes) - fork

    def forward(self, lengths: Iterable[int], predicted: int) -> float:
        """FLOPs of sequences of these lengths with `predicted` positions, in all, that need logits."""
        read = sum(sequence_flops(self.trunk, self.pair * self.layers, n) for n in lengths)
        return float(read + 2 * self.head * predicted)

    def step(self, lengths: Iterable[int], predicted: int) -> float:
        """FLOPs of forward and backward together."""
        lengths = list(lengths)
        pairs = sum(n * (n + 1) // 2 for n in lengths)
        through = 2 * self.above * sum(lengths) + 2 * self.head * predicted
        backward = through + 2 * self.trained * sum(lengths) + 2 * self.pair * self.layers_above * pairs
        return self.forward(lengths, predicted) + float(backward)


def training_flops(trunk: Any, head: nn.Module, read: Iterable[int], trained: Iterable[int]) -> float:
    """FLOPs of training a value, an upper bound: every position counts, those of the prompt too.

    The trunk reads sequences of lengths `read` once. The head goes forward and backward over those of lengths
    `trained`, an entry for each time that a sequence came up; so does the trunk where a part of it is trained.
    """
    trunk_size = sum(p.numel() for p in trunk.parameters()) - trunk.get_input_embeddings().weight.numel()
    adapted = sum(p.numel() for p in trunk.parameters() if p.requires_grad)
    head_size = sum(p.numel() for p in head.parameters())
    again = 4 * trunk_size + 2 * adapted if adapted else 0
    return float(2 * trunk_size * sum(read) + (6 * head_size + again) * sum(trained))
