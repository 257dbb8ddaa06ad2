"""What a training costs: FLOPs of forward and backward passes of a language model of which a part is trained."""

from collections.abc import Iterable
from typing import Any

from torch import nn


class Cost:
    """Counts 2 FLOPs a weight and token for the forward pass, 2 for the gradient of what it read, 2 for that of itself.

    Gradients flow through the layers above the lowest trained one only; the language-model head costs its positions
    alone; attention adds 4·heads·head size for every (token, attended position) pair and layer. The input embedding is
    a look-up and costs nothing.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers)
        sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
        touched = [i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())]
        below = any(p.requires_grad for p in model.get_input_embeddings().parameters())
        fork = 0 if below else touched[0] if touched else len(sizes)
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.trunk, self.above = sum(sizes), sum(sizes[fork:])
        self.trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.head = sum(p.numel() for p in model.get_output_embeddings().parameters())
        self.pair = 4 * config.num_attention_heads * size
        self.layers, self.layers_above = len(sizes), len(sizes) - fork

    def forward(self, lengths: Iterable[int], predicted: int) -> float:
        """Of sequences of these lengths with `predicted` positions that need logits."""
        lengths = list(lengths)
        pairs = sum(n * (n + 1) // 2 for n in lengths)
        return float(2 * self.trunk * sum(lengths) + 2 * self.head * predicted + self.pair * self.layers * pairs)

    def step(self, lengths: Iterable[int], predicted: int) -> float:
        """Of forward and backward together."""
        lengths = list(lengths)
        pairs = sum(n * (n + 1) // 2 for n in lengths)
        through = 2 * self.above * sum(lengths) + 2 * self.head * predicted
        backward = through + 2 * self.trained * sum(lengths) + 2 * self.pair * self.layers_above * pairs
        return self.forward(lengths, predicted) + float(backward)


def training_flops(trunk: Any, head: nn.Module, read: Iterable[int], trained: Iterable[int]) -> float:
    """Of a value: one forward of the trunk over sequences of lengths `read`, and forward and backward of the head, and
    of the trunk where a part of it is trained, over those of lengths `trained`. An upper bound: all positions count."""
    trunk_size = sum(p.numel() for p in trunk.parameters()) - trunk.get_input_embeddings().weight.numel()
    adapted = sum(p.numel() for p in trunk.parameters() if p.requires_grad)
    head_size = sum(p.numel() for p in head.parameters())
    again = 4 * trunk_size + 2 * adapted if adapted else 0
    return float(2 * trunk_size * sum(read) + (6 * head_size + again) * sum(trained))
