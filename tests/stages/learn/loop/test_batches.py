"""However a batch is cut, its gradient is that of the whole."""

from pathlib import Path

import pytest
import torch

from stages.engine.language_model import load_model
from stages.learn.loop.batches import cut, length_batches
from stages.learn.responses import Exchange, response_nats


def test_parts_hold_every_example_once_and_share_the_whole_batch_s_weight():
    parts = cut([3, 1, 4, 0, 2], [5.0, 1.0, 2.0, 3.0, 9.0], parts=2)
    assert sorted(i for part in parts for i in part.indices) == [0, 1, 2, 3, 4]
    # averaged over two parts, each summed loss counts 1/20 of the batch's 20 terms
    assert [part.scale / 2 for part in parts] == [1 / 20, 1 / 20]


def test_a_part_without_examples_goes_along_at_weight_zero():
    assert cut([7], {7: 4.0}, parts=3) == [([7], 0.75), ([7], 0.0), ([7], 0.0)]


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_the_gradient_does_not_depend_on_the_cut_or_on_padding(tiny_model: Path, parts: int):
    model = load_model(tiny_model, dtype="float32", device="cpu")
    weight: torch.nn.Parameter = model.get_parameter("lm_head.weight")
    weight.requires_grad_(True)
    data = [Exchange([5] * p, [9, 17, 30, 31, 32, 33][:r]) for p, r in ((1, 6), (9, 1), (4, 2), (2, 5))]
    sizes = [len(e.response) for e in data]

    def gradient(batch_parts: list) -> torch.Tensor:
        weight.grad = None
        for part in batch_parts:
            summed, _ = response_nats(model, [data[i] for i in part.indices])
            (summed * part.scale / len(batch_parts)).backward()
        assert weight.grad is not None
        return weight.grad.clone()

    # one example at a time, no padding at all: the mean over all 14 tokens
    weight.grad = None
    (torch.stack([response_nats(model, [e])[0] for e in data]).sum() / 14).backward()
    assert weight.grad is not None
    expected = weight.grad.clone()
    assert torch.allclose(gradient(cut([0, 1, 2, 3], sizes, parts)), expected, atol=1e-6)


def test_every_epoch_holds_every_example_once():
    batches = length_batches([3, 1, 2, 3, 1, 2, 9], batch_size=2, epochs=2, seed=0)
    seen = [index for batch in batches for index in batch]
    assert len(batches) == 8
    assert sorted(seen) == sorted([*range(7)] * 2)


def test_batches_hold_neighbours_in_length():
    lengths = [30, 1, 29, 2, 28, 3]
    for batch in length_batches(lengths, batch_size=2, epochs=3, seed=1):
        assert abs(lengths[batch[0]] - lengths[batch[1]]) == 1 or {lengths[i] for i in batch} == {3, 28}


def test_a_seed_fixes_the_order_and_another_changes_it():
    lengths = [5] * 40
    assert length_batches(lengths, 4, 1, seed=3) == length_batches(lengths, 4, 1, seed=3)
    assert length_batches(lengths, 4, 1, seed=3) != length_batches(lengths, 4, 1, seed=4)


def test_half_an_epoch_is_half_the_batches():
    assert len(length_batches([5] * 40, 4, 0.5, seed=0)) == 5
    assert len(length_batches([5] * 40, 4, 1.5, seed=0)) == 15
