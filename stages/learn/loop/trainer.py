"""How every stage trains, by Lightning: `fit` trains a `Module` (a loss and its optimiser). `Trainer` holds the
settings that can change the result; `TrainingRuntime` says where and in what portions it is computed, which cannot.

The batches of all steps are laid out beforehand (`batches.py`). So Lightning sees one "epoch", the schedule and the
progress know where they end, and a seed fixes the order.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from stages.errors import BadInput
from stages.learn.loop.batches import Batches, Part
from stages.learn.loop.ranks import placed
from stages.learn.loop.watch import Checkpoints, EarlyStopping, Progress, quiet, require_finite
from stages.runtime import Runtime

PRECISIONS = {"32": "32-true", "bf16-mixed": "bf16-mixed"}
SCHEDULES = ("cosine", "linear", "constant")


@dataclass
class Trainer:
    """What of a training can change its result."""

    precision: str = "32"
    """`32`, or `bf16-mixed`: matrix products of float32 weights in bfloat16."""
    clip: float = 1.0
    """Largest norm of a step's gradient; 0: any."""
    schedule: str = "cosine"
    """Of the learning rate after its warm-up: `cosine` or `linear`, down to a tenth, or `constant`."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises in a straight line."""
    max_steps: int = 0
    """At most so many optimiser steps; 0: as many as the epochs have."""
    patience: int = 0
    """Held-out checks in a row without a better loss that end the training; the best weights are kept. 0: no checks."""
    check_every: int = 50
    """Optimiser steps between two held-out checks."""

    def check(self, field: str = "trainer") -> None:
        """Raises BadInput naming the first value that cannot be used."""
        if self.precision not in PRECISIONS:
            raise BadInput(f"{field}.precision", f"{self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.schedule not in SCHEDULES:
            raise BadInput(f"{field}.schedule", f"{self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        if not 0 <= self.warmup <= 1:
            raise BadInput(f"{field}.warmup", f"{self.warmup} is no share of the steps, 0 to 1")
        if self.clip < 0 or self.max_steps < 0 or self.patience < 0:
            name = "clip" if self.clip < 0 else "max_steps" if self.max_steps < 0 else "patience"
            raise BadInput(f"{field}.{name}", f"{getattr(self, name)} is negative; 0 switches it off")
        if self.check_every < 1:
            raise BadInput(f"{field}.check_every", f"{self.check_every} is not a positive number of steps")

    def scale(self, step: int, steps: int) -> float:
        """The learning rate's factor at `step`, from 0, of `steps`.

        >>> [round(Trainer(schedule="linear", warmup=0.5).scale(step, 4), 3) for step in range(4)]
        [0.5, 1.0, 1.0, 0.55]
        """
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, steps - warm)
        falls = {"constant": 1.0, "linear": 1 - 0.9 * done, "cosine": 0.1 + 0.45 * (1 + float(np.cos(np.pi * done)))}
        return falls[self.schedule]


@dataclass
class TrainingRuntime(Runtime):
    """Where a training runs and in what portions; its result is the same up to rounding."""

    devices: int = 1
    """As many processes train together, one a device (DDP); whoever runs the stage starts them."""
    strategy: str = "auto"
    """`auto`: DDP where there are several devices; `ddp`: the same, said aloud."""
    accumulate: int = 1
    """Parts of a batch that a process forwards one after the other, for want of memory."""
    checkpoint_every: int = 0
    """Optimiser steps between two checkpoints, where the runner gives a folder for them; 0: none."""
    resume: bool = True
    """Go on from the last checkpoint, where there is one."""

    def check(self) -> None:
        """Raises BadInput for devices that are not there, portions that cannot be, or another number of processes."""
        kind, _, index = self.device.partition(":")
        there = device_count(kind)
        wanted = int(index) + 1 if index else self.devices
        if there is None:
            raise BadInput("runtime.device", f"{self.device!r} is no device of this machine; set trainer.accelerator")
        if wanted > there:
            raise BadInput("runtime.devices", f"{self.device} × {self.devices} was asked for, but there are {there}")
        if index and self.devices > 1:
            raise BadInput("runtime.device", f"{self.device} is one device; write {kind} for {self.devices} of them")
        for name, least in (("devices", 1), ("accumulate", 1), ("checkpoint_every", 0)):
            if getattr(self, name) < least:
                raise BadInput(f"runtime.{name}", f"{getattr(self, name)} is less than {least}")
        if self.strategy not in ("auto", "ddp"):
            raise BadInput("runtime.strategy", f"{self.strategy!r} is not one of auto, ddp")
        if self.devices != self.world:
            raise BadInput(
                "runtime.devices",
                f"{self.devices} needs as many processes, and this stage runs in {self.world}; `tilt run` starts as "
                "many as the stage's resources.processes says, which has to be the same",
            )


def machines_of(runtime: Runtime, trainer: Trainer) -> TrainingRuntime:
    """Where a training runs, a plain runtime's device being one process.

    Raises BadInput for settings or devices that cannot be used: a stage asks before it loads anything.
    """
    trainer.check()
    if isinstance(runtime, TrainingRuntime):
        machines = runtime
    else:
        machines = TrainingRuntime(device=runtime.device, rank=runtime.rank, world=runtime.world)
    machines.check()
    return machines


def device_count(kind: str) -> int | None:
    """How many devices of a kind this machine has, None where it has none. Of the main processor there are as many as
    one likes, since processes share it."""
    try:
        torch.empty(1, device=kind)
    except (RuntimeError, AssertionError):
        return None
    found = torch.accelerator.current_accelerator()
    return torch.accelerator.device_count() if found is not None and found.type == kind else 1 << 10


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's generators start from `seed`; outside they go on from where they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class Module(pl.LightningModule):
    """A training: `loss(indices)` of some examples, *summed* over their terms; `terms` counts each example's.

    AdamW on all parameters that require a gradient. The data stay with the subclass, which looks its examples up by
    index and moves them to `self.device`.
    """

    settings: Trainer
    steps: int

    def __init__(self, *, terms: Sequence[float], learning_rate: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.terms = terms
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.strict_loading = False  # checkpoints hold what is trained, not the frozen model around it

    def loss(self, indices: list[int]) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, part: Part) -> torch.Tensor:
        return self.loss(part.indices) * part.scale

    def training_step(self, batch: Part, batch_index: int) -> torch.Tensor:
        loss = self.forward(batch)
        self.log("loss", loss.detach(), batch_size=len(batch.indices))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._heldout_sums = [torch.zeros((), dtype=torch.float64), 0.0]

    def validation_step(self, batch: Part, batch_index: int) -> None:
        if batch.scale:
            self._heldout_sums[0] += self.loss(batch.indices).double().cpu()
            self._heldout_sums[1] += sum(self.terms[i] for i in batch.indices)

    def on_validation_epoch_end(self) -> None:
        sums = torch.tensor([float(s) for s in self._heldout_sums], device=self.device)
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")  # a plain tensor where there is one process
        assert isinstance(sums, torch.Tensor)
        self.log("heldout_loss", (sums[0] / sums[1]).float())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.settings.scale(step, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@dataclass
class Trained:
    """What `fit` did."""

    steps: int
    """Optimiser steps."""
    seconds: float
    examples: list[int]
    """Indices that went through the model, as often as they did, in all processes."""


def fit(
    module: Module,
    steps: Sequence[Sequence[int]],
    runtime: Runtime,
    note: str = "loss",
    *,
    trainer: Trainer | None = None,
    heldout: Sequence[int] = (),
) -> Trained:
    """Trains on these batches, in this order, one optimiser step each; `heldout` examples decide on an early end.

    Raises BadInput for settings or devices that cannot be used and for a checkpoint of another architecture,
    FloatingPointError naming the loss (`note`) and the step where it or a trained weight is not finite.
    """
    trainer = trainer or Trainer()
    machines = machines_of(runtime, trainer)
    steps = steps[: trainer.max_steps] if trainer.max_steps else steps
    module.settings, module.steps = trainer, len(steps)
    watching = trainer.patience > 0 and bool(heldout)
    folder: Path | None = runtime.checkpoints if machines.checkpoint_every or machines.resume else None
    checks = trainer.check_every if watching else 0
    checkpoints = Checkpoints(folder, machines.checkpoint_every, module, checks, note)
    stopping = EarlyStopping(trainer.patience, module, note)
    begun = time.perf_counter()
    with quiet():
        lightning = pl.Trainer(
            **placed(runtime, DDPStrategy),
            max_steps=len(steps),
            min_epochs=0,  # an early end may come within the one epoch
            accumulate_grad_batches=machines.accumulate,
            precision=PRECISIONS[trainer.precision],  # type: ignore[arg-type]
            gradient_clip_val=trainer.clip or None,
            logger=(runtime.loggers() or False) if runtime.rank == 0 else False,
            callbacks=[Progress(runtime, note), *([stopping] if watching else []), checkpoints],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # `Batches` cuts them itself
            log_every_n_steps=min(10, max(1, len(steps))),
            limit_val_batches=1.0 if watching else 0,
            val_check_interval=trainer.check_every * machines.accumulate if watching else None,
            check_val_every_n_epoch=None if watching else 1,
            num_sanity_val_steps=0,
        )
        data = Batches(steps, module.terms, heldout, accumulate=machines.accumulate, rows=runtime.rows)
        last = checkpoints.last() if machines.resume else None
        try:
            lightning.fit(module, data, ckpt_path=last, weights_only=True)
        except SystemExit:
            if lightning.interrupted:  # Lightning swallows Ctrl-C and exits with 1; to our callers it stays a Ctrl-C
                raise KeyboardInterrupt from None
            raise
        done = lightning.global_step
    if watching:
        stopping.restore()
    require_finite(module, note, done)
    module.to(runtime.device)
    return Trained(done, time.perf_counter() - begun, [i for step in steps[:done] for i in step])
