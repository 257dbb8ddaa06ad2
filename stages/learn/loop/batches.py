"""Batches of like length, and how one batch is cut over processes and accumulation steps without changing its loss.

`length_batches` lays out the batches of all optimiser steps before the training begins. Each is cut into as many parts
as there are processes times accumulation steps. A part's summed loss is divided by the number of terms in the *whole*
batch, so that the gradient is that of one forward over all of it, however it is cut.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, Sampler


def length_batches(lengths: Sequence[int], batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """Indices of every batch of every epoch: neighbours in length share a batch, the batches come in random order.

    Sequences of equal length are ordered at random, so that batches differ between epochs. A fraction of an epoch takes
    that share of its batches.

    >>> sorted(map(sorted, length_batches([5, 9, 5, 9], 2, epochs=1, seed=0)))
    [[0, 2], [1, 3]]
    """
    generator = np.random.default_rng(seed)
    batches: list[list[int]] = []
    while epochs > 1e-9:
        order = np.lexsort((generator.random(len(lengths)), np.asarray(lengths)))
        epoch = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
        epoch = [epoch[i] for i in generator.permutation(len(epoch))]
        batches += epoch[: max(1, round(len(epoch) * min(1.0, epochs)))]
        epochs -= 1
    return batches


class Part(NamedTuple):
    """What one process forwards at once."""

    indices: list[int]
    scale: float
    """Times the part's summed loss; the mean of that over all parts is the mean loss of the batch."""


def cut(batch: Sequence[int], terms: Sequence[float] | Mapping[int, float], parts: int) -> list[Part]:
    """The batch in `parts` parts whose sizes differ by one at most. Where there are more parts than examples, the
    others repeat an example at scale 0: every process has to forward something.

    `terms` counts the terms of every example's loss (tokens, states, pairs).

    >>> cut([7, 8, 9], {7: 2.0, 8: 1.0, 9: 1.0}, 2)     # 4 terms in all, averaged over 2 parts: 2/4 each
    [Part(indices=[7, 9], scale=0.5), Part(indices=[8], scale=0.5)]
    """
    total = sum(terms[i] for i in batch)
    made = [list(batch[part::parts]) for part in range(parts)]
    return [Part(chosen, parts / total) if chosen else Part([batch[0]], 0.0) for chosen in made]


class _Parts(Dataset[Part]):
    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Part:
        return self.parts[index]


class _FromStep(Sampler[int]):
    """All parts of a process in order, from the step that the trainer stands at: a resumed training goes on there."""

    def __init__(self, trainer: pl.Trainer, accumulate: int, parts: int) -> None:
        self.trainer, self.accumulate, self.parts = trainer, accumulate, parts

    def __len__(self) -> int:
        return self.parts

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.trainer.global_step * self.accumulate, self.parts))


class Batches(pl.LightningDataModule):
    """Laid-out training batches and held-out examples, each process's share of them. Items are indices: the data stay
    with the module that is trained."""

    def __init__(
        self,
        steps: Sequence[Sequence[int]],
        terms: Sequence[float],
        heldout: Sequence[int] = (),
        *,
        accumulate: int = 1,
        rows: int = 64,
    ) -> None:
        super().__init__()
        self.steps, self.terms, self.heldout = steps, terms, heldout
        self.accumulate, self.rows = accumulate, rows

    def train_dataloader(self) -> DataLoader[Part]:
        trainer = cast(pl.Trainer, self.trainer)
        rank, world = trainer.global_rank, trainer.world_size
        parts = [p for step in self.steps for p in cut(step, self.terms, world * self.accumulate)[rank::world]]
        sampler = _FromStep(trainer, self.accumulate, len(parts))
        return DataLoader(_Parts(parts), batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Part]:
        """Held-out examples, unscaled; every process gets the same number of parts."""
        trainer = cast(pl.Trainer, self.trainer)
        rank, world = trainer.global_rank, trainer.world_size
        each = self.rows * world
        batches = [self.heldout[i : i + each] for i in range(0, len(self.heldout), each)]
        parts = [cut(batch, self.terms, world)[rank] for batch in batches]
        return DataLoader(_Parts([Part(p.indices, float(p.scale > 0)) for p in parts]), batch_size=None)
