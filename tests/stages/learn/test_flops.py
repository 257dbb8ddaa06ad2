"""FLOPs of reading and of training, counted by hand on a model whose layers have few weights."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from stages.learn.flops import (
    Cost,
    attention_per_layer,
    layer_lists,
    reading_flops,
    sequence_flops,
    training_flops,
)


class Tiny(nn.Module):
    """Two layers of 6 weights, an embedding of 5 · 2 and a head of as many; one head of size 2."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=2, hidden_size=2, num_attention_heads=1)
        self.embedding = nn.Embedding(5, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])
        self.head = nn.Linear(2, 5, bias=False)
        self.requires_grad_(False)

    def get_input_embeddings(self) -> Any:
        return self.embedding

    def get_output_embeddings(self) -> Any:
        return self.head


def test_a_pair_costs_4_times_heads_times_head_size():
    assert attention_per_layer(SimpleNamespace(num_attention_heads=4, hidden_size=32)) == 4 * 4 * 8
    assert attention_per_layer(SimpleNamespace(num_attention_heads=4, hidden_size=32, head_dim=16)) == 4 * 4 * 16


def test_a_sequence_by_hand():
    # 10 weights, 3 a pair, 4 tokens: 2·10·4 and 3·(1 + 2 + 3 + 4); in an encoder each of 4 attends to 4
    assert sequence_flops(10, 3, 4) == 80 + 30
    assert sequence_flops(10, 3, 4, causal=False) == 80 + 48
    assert sequence_flops(10, 3, 0) == 0


def test_reading_counts_the_layers_and_neither_embedding_nor_head():
    # 12 weights in two layers, 8 a pair and layer: 3 tokens take 2·12·3 + 16·6, 1 token 24 + 16
    found = reading_flops(Tiny(), 2, [3, 1])
    assert found.dtype == "float64"
    assert found.tolist() == [72 + 96, 24 + 16]
    assert reading_flops(Tiny(), 2, [3], causal=False).tolist() == [72 + 16 * 9]


def test_layers_are_found_by_their_number():
    assert [len(found) for found in layer_lists(Tiny(), 2)] == [2]
    assert layer_lists(Tiny(), 3) == []


def test_a_forward_counts_the_head_at_predicted_positions_alone():
    # 3 tokens: 2·12·3 + 8·2·6 = 168; two predicted: 2·10·2 = 40
    assert Cost(Tiny()).forward([3], 2) == 168 + 40
    assert Cost(Tiny()).forward([3, 1], 0) == 168 + 24 + 16


@pytest.mark.parametrize(
    ("trained", "backward"),
    [
        # through the top layer and the head 2·6·3 + 2·10·2, weights 2·6·3, attention of one layer 2·8·6
        ("layers.1", 36 + 40 + 36 + 96),
        # through both layers: 2·12·3 + 40, weights 2·6·3, attention of both 2·8·2·6
        ("layers.0", 72 + 40 + 36 + 192),
        # from the embedding on: through both layers, weights 2·10·3
        ("embedding", 72 + 40 + 60 + 192),
    ],
)
def test_a_step_goes_back_to_the_lowest_trained_layer(trained: str, backward: int):
    model = Tiny()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    assert Cost(model).step([3], 2) == 168 + 40 + backward


def test_a_frozen_trunk_is_read_once_and_its_head_trained_in_every_epoch():
    trunk, head = Tiny(), nn.Linear(2, 1)  # 3 weights
    weights = 6 + 6 + 10  # all but the input embedding
    assert training_flops(trunk, head, read=[4, 2], trained=[4, 2, 4, 2]) == 2 * weights * 6 + 6 * 3 * 12


def test_an_adapted_trunk_is_read_and_differentiated_in_every_epoch():
    trunk, head = Tiny(), nn.Linear(2, 1)
    trunk.layers[0].requires_grad_(True)  # 6 weights
    again = 4 * 22 + 2 * 6  # forward and gradient of the states, gradient of the adapted weights
    assert training_flops(trunk, head, read=[4], trained=[4, 4]) == 2 * 22 * 4 + (6 * 3 + again) * 8
    assert torch.is_grad_enabled()
