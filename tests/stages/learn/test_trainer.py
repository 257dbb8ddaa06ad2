"""Batches, seeds and the Lightning trainer that every training stage shares."""

import warnings
from pathlib import Path

import pytest
import torch

from stages.learn.batches import length_batches
from stages.learn.trainer import Module, fit, seeded
from stages.runtime import Runtime


class Line(Module):
    """y = w·x fitted to y = 3x, one number an example."""

    def __init__(self) -> None:
        super().__init__(weights=[1.0] * 3, learning_rate=0.3)
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def loss(self, indices: list[int]) -> torch.Tensor:
        x = torch.tensor(indices, dtype=torch.float32) + 1
        return (self.weight * x - 3 * x).square().sum()


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


def test_seeded_leaves_the_global_generator_as_it_was():
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    first = torch.rand(1)
    with seeded(0):
        inside = torch.rand(1)
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)
    with seeded(0):
        assert torch.equal(torch.rand(1), inside)


def test_fit_trains_reports_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    told: list[tuple[int, int, str]] = []
    module = Line()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = length_batches([1, 1, 1], 2, 30, seed=0)
        fit(module, batches, Runtime(progress=lambda *now: told.append(now)), "error")
    assert module.weight.item() == pytest.approx(3, abs=0.05)
    assert told[-1][:2] == (60, 60)
    assert told[-1][2].startswith("error ")
    assert list(tmp_path.iterdir()) == []
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_an_interrupt_stays_an_interrupt():
    class Interrupted(Line):
        def loss(self, indices: list[int]) -> torch.Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(), [[0]], Runtime())
