"""The cut trunk gives the very states of the whole model, whatever shares the batch."""

from pathlib import Path

import pytest
import torch

from stages.engine.language_model import load_model
from stages.errors import BadInput
from stages.learn.trunk import Trunk

SEQUENCES = [[5, 9, 17, 30, 8], [12], [40, 41, 42], [7, 7]]


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_states_are_those_of_the_whole_model(tiny_model: Path, layer: int):
    trunk = Trunk(tiny_model, layer=layer, dtype="float32", device="cpu")
    whole = load_model(tiny_model, dtype="float32", device="cpu")
    found = dict(trunk.states(SEQUENCES, rows=3))
    for index, sequence in enumerate(SEQUENCES):
        expected = whole(input_ids=torch.tensor([sequence]), output_hidden_states=True).hidden_states[layer][0]
        assert torch.allclose(found[index], expected, atol=1e-5)


def test_layers_above_are_not_computed(tiny_model: Path):
    cut = Trunk(tiny_model, layer=1, dtype="float32", device="cpu")
    assert len(cut.model.layers) == 2  # layers 0 and 1; the tiny model has three


def test_a_layer_that_does_not_exist_is_refused(tiny_model: Path):
    with pytest.raises(BadInput, match=r"^layer: 4 is no layer .* 0 to 3"):
        Trunk(tiny_model, layer=4, dtype="float32", device="cpu")


def test_an_empty_text_still_has_a_state(tiny_model: Path):
    trunk = Trunk(tiny_model, layer=1, dtype="float32", device="cpu")
    assert trunk.encode("") == [2]  # EOS, for the tokenizer names no BOS
    assert dict(trunk.states([trunk.encode("")], 1))[0].shape == (1, 32)
