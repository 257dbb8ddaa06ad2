"""What goes along with a training: progress, checkpoints that a later attempt resumes from, early stopping, silence.

Each of them ends a training whose numbers are not finite; what it saved would look like a result.
"""

import contextlib
import logging
import math
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from stages.errors import BadInput
from stages.runtime import Runtime

WAY_OUT = "set a smaller learning_rate or trainer.clip, or look for what is not finite in the data or the model"


def require_finite(module: torch.nn.Module, note: str, step: int) -> None:
    """Raises FloatingPointError where a weight that is trained is not finite. The device is asked once for all."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if trained and not torch.stack([p.detach().isfinite().all() for p in trained.values()]).all():
        name = next(name for name, p in trained.items() if not p.detach().isfinite().all())
        raise FloatingPointError(f"{note}: weight {name} is not finite after step {step}; {WAY_OUT}")


class Progress(pl.Callback):
    """Tells the runtime how far the training is, a few times a second at most, with a running mean of the loss.

    Raises FloatingPointError in the step whose loss is not finite.
    """

    def __init__(self, runtime: Runtime, note: str) -> None:
        self.runtime = runtime
        self.note = note
        self.mean: float | None = None
        self.told = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"] if isinstance(outputs, dict) else outputs) * trainer.accumulate_grad_batches
        if not math.isfinite(loss):
            number = batch_idx // trainer.accumulate_grad_batches + 1
            raise FloatingPointError(f"{self.note} is {loss} at step {number}; {WAY_OUT}")
        self.mean = loss if self.mean is None else 0.9 * self.mean + 0.1 * loss
        step, steps = trainer.global_step, int(trainer.max_steps)
        if step >= steps or time.monotonic() - self.told > 0.3:
            self.told = time.monotonic()
            held = trainer.callback_metrics.get("heldout_loss")
            told = f"{self.note} {self.mean:.3f}" + (f" held-out {float(held):.3f}" if held is not None else "")
            self.runtime.progress(step, steps, told)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if time.monotonic() - self.told > 0.3:
            self.told = time.monotonic()
            self.runtime.progress(trainer.global_step, int(trainer.max_steps), "held-out loss")


class Checkpoints(pl.Callback):
    """Every `every` steps saves what is trained, the optimiser and the place in the data, in one file."""

    def __init__(
        self, folder: Path | None, every: int, module: torch.nn.Module, check_every: int = 0, note: str = "loss"
    ) -> None:
        self.path = None if folder is None else Path(folder) / "last.ckpt"
        self.every = every
        self.module = module
        self.check_every = check_every
        """Steps between two held-out checks: a checkpoint waits for the check of its own step."""
        self.note = note
        self.saved = 0

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if not self.check_every or trainer.global_step % self.check_every:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        if self.path is None or not self.every or step == self.saved or step % self.every:
            return
        require_finite(self.module, self.note, step)  # no later attempt could go on from it
        self.saved = step
        unfinished = self.path.with_suffix(".part")
        trainer.save_checkpoint(unfinished)  # a collective: every process calls it, the first one writes
        if trainer.is_global_zero:
            os.replace(unfinished, self.path)

    def last(self) -> str | None:
        """The checkpoint's path. Raises BadInput where it is of another architecture than the module."""
        if self.path is None or not self.path.is_file():
            return None
        found = torch.load(self.path, map_location="meta", weights_only=True)["state_dict"]
        trained = {name: p.shape for name, p in self.module.named_parameters() if p.requires_grad}
        for name in sorted(found.keys() | trained.keys()):
            there = tuple(found[name].shape) if name in found else "missing"
            here = tuple(trained[name]) if name in trained else "missing"
            if there != here:
                raise BadInput(
                    "runtime.checkpoints",
                    f"{self.path} is of another architecture: {name} is {there} in it and {here} here; "
                    "remove the file or set trainer.resume=false",
                )
        return str(self.path)


class EarlyStopping(pl.Callback):
    """Ends the training after `patience` checks without a better held-out loss, and keeps the best weights.

    Raises FloatingPointError where the first held-out loss is not finite: there is nothing that could be best.
    """

    def __init__(self, patience: int, module: torch.nn.Module, note: str = "loss") -> None:
        self.patience = patience
        self.module = module
        self.note = note
        self.best = float("inf")
        self.worse = 0
        self.weights: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = float(trainer.callback_metrics["heldout_loss"])
        if loss < self.best:
            self.best, self.worse = loss, 0
            trained = ((name, p) for name, p in self.module.named_parameters() if p.requires_grad)
            self.weights = {name: p.detach().cpu().clone() for name, p in trained}
            return
        if not self.weights:
            raise FloatingPointError(f"held-out {self.note} is {loss} at step {trainer.global_step}; {WAY_OUT}")
        self.worse += 1
        if self.worse >= self.patience:
            trainer.should_stop = True

    def restore(self) -> None:
        """Puts the best weights back."""
        here = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, weight in self.weights.items():
                here[name].copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "worse": self.worse, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.worse, self.weights = state_dict["best"], state_dict["worse"], state_dict["weights"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, Lightning's notices on devices, workers and checkpoints are not shown: a user could not act on them."""
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
