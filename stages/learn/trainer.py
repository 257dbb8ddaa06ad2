"""One way into Lightning for every stage that trains: quiet, seeded, reporting to the runtime.

Steps are known beforehand (`length_batches` lays out every batch of every epoch), so a training has one Lightning
"epoch", its schedule and its progress know their end, and a seed fixes the order.
"""

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader, Dataset

from stages.runtime import Runtime


def length_batches(lengths: Sequence[int], batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """Indices of every batch of every epoch: neighbours in length share a batch, the batches come in random order.

    Ties and near ties in length are broken at random, so that batches differ between epochs. A fraction of an epoch
    takes that share of its batches.

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


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generators start from `seed` inside, and go on outside as though nothing had happened."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class _Progress(pl.Callback):
    """Tells the runtime how far the training is, a few times a second at most, with a running mean of the loss."""

    def __init__(self, runtime: Runtime, note: str) -> None:
        self.runtime = runtime
        self.note = note
        self.mean: float | None = None
        self.told = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"] if isinstance(outputs, dict) else outputs)
        self.mean = loss if self.mean is None else 0.9 * self.mean + 0.1 * loss
        step, steps = trainer.global_step, int(trainer.max_steps)
        if step >= steps or time.monotonic() - self.told > 0.3:
            self.told = time.monotonic()
            self.runtime.progress(step, steps, f"{self.note} {self.mean:.3f}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lightning's notices on devices, workers and checkpoints: nothing that a reader of a pipeline could act on."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    loggers += [
        logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("pytorch_lightning.")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def accelerator(device: str) -> dict[str, Any]:
    """Lightning's names for one device of torch: `cuda:1` → `{"accelerator": "cuda", "devices": [1]}`."""
    kind, _, index = device.partition(":")
    return {"accelerator": kind, "devices": [int(index)] if index else 1}


class _Batches(Dataset[list[int]]):
    """The laid-out batches, one item each."""

    def __init__(self, batches: Sequence[Sequence[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[int]:
        return list(self.batches[index])


class Module(pl.LightningModule):
    """A training: `loss(indices)` of one batch; AdamW with a linear warm-up and a cosine descent to a tenth.

    The data stay with the subclass, which looks its examples up by index and moves them to `self.device`.
    """

    def __init__(self, *, learning_rate: float, weight_decay: float = 0.0, warmup: float = 0.1) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup

    def loss(self, indices: list[int]) -> torch.Tensor:
        raise NotImplementedError

    def training_step(self, batch: list[int], batch_index: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, batch_size=len(batch))
        return loss

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.max_steps)
        warm = max(1, round(self.warmup * steps))

        def scale(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.1 + 0.45 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))

        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(
    module: Module, batches: Sequence[Sequence[int]], runtime: Runtime, note: str = "loss", *, dtype: str = "float32"
) -> None:
    """Trains on exactly these batches, in this order, one optimiser step each.

    `dtype` `bfloat16` computes matrix products in it where weights are float32 (autocast).
    """
    with quiet():
        trainer = pl.Trainer(
            **accelerator(runtime.device),
            max_steps=len(batches),
            precision="bf16-mixed" if dtype == "bfloat16" else "32-true",
            logger=runtime.loggers() or False,
            callbacks=[_Progress(runtime, note)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            log_every_n_steps=min(10, max(1, len(batches))),
            plugins=[LightningEnvironment()],  # one process; who requeues it on a cluster is the runner's business
        )
        loader = DataLoader(_Batches(batches), batch_size=None, shuffle=False)
        try:
            trainer.fit(module, loader)
        except SystemExit:
            if trainer.interrupted:  # Lightning swallows Ctrl-C and exits with 1; to our callers it stays a Ctrl-C
                raise KeyboardInterrupt from None
            raise
    module.to(runtime.device)
