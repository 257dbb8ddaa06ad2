"""Weights & Biases: a run for each stage, grouped by sweep. Its job type is the stage, its id comes from the key.

Everything is written to a local folder first. It is sent only if the server answered at the start. A stage never waits
long for the server: what was not sent stays on disk for `wandb sync`.
"""

import importlib
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@dataclass
class Tracking:
    """Where runs go. `mode`: `none`, `offline` (written locally) or `online`."""

    mode: str = "none"
    project: str = "tiltlab"
    entity: str | None = None
    group: str = ""
    """The sweep's name."""
    folder: str = ""
    """Local folder for W&B's files."""
    finish_seconds: float = 20.0
    """How long a stage waits at its end for what is still to be sent."""


def settled(tracking: Tracking, seconds: float = 2.0) -> Tracking:
    """`online` becomes `offline` where the server does not answer within `seconds`; asked once a run of `tilt`."""
    if tracking.mode != "online":
        return tracking
    try:
        urllib.request.urlopen(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"), timeout=seconds).close()
    except urllib.error.HTTPError:
        pass  # any answer at all is an answer
    except OSError as error:
        log.warning(
            "tracking: W&B does not answer (%s); runs are kept in %s, send them later with `wandb sync`",
            getattr(error, "reason", error),
            tracking.folder,
        )
        return replace(tracking, mode="offline")
    return tracking


class NoRun:
    """The tracker that keeps nothing."""

    def metrics(self, values: Mapping[str, float]) -> None:
        pass

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        pass

    def loggers(self) -> list[Any]:
        return []

    def finish(self) -> None:
        pass


class WandbRun(NoRun):
    """One W&B run for one stage execution. A failure of W&B is a line in the log and never reaches the stage."""

    def __init__(self, tracking: Tracking, key: str, stage: str, config: Mapping[str, Any]) -> None:
        import wandb

        Path(tracking.folder).mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        self._finish_seconds = tracking.finish_seconds
        self._run = wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            group=tracking.group,
            job_type=stage,
            name=f"{stage}-{key[:8]}",
            id=key[:16],
            resume="allow",
            mode="online" if tracking.mode == "online" else "offline",
            dir=tracking.folder,
            config={k: v for k, v in config.items() if k != "runtime"},
            settings=wandb.Settings(silent=True, console="off", init_timeout=10, x_disable_stats=True),
        )

    def metrics(self, values: Mapping[str, float]) -> None:
        self._guarded(lambda: self._run.summary.update(dict(values)))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._guarded(
            lambda: self._run.log({name: self._wandb.Table(columns=list(columns), data=[list(r) for r in rows])})
        )

    def loggers(self) -> list[Any]:
        from pytorch_lightning.loggers import WandbLogger

        return [WandbLogger(experiment=self._run)]

    def finish(self) -> None:
        # a server that went away must not hold the stage: the files are on disk already
        sender = threading.Thread(target=lambda: self._guarded(self._run.finish), daemon=True)
        sender.start()
        sender.join(self._finish_seconds)
        if sender.is_alive():
            log.warning("tracking: W&B did not take everything in %.0f s; use `wandb sync` later", self._finish_seconds)

    def _guarded(self, call: Any) -> None:
        try:
            call()
        except Exception as error:
            log.warning("tracking: %s", error)


def tracker(tracking: Tracking, key: str, stage: str, config: Mapping[str, Any], staging: Path) -> NoRun:
    """The tracker of one execution; where W&B cannot start, offline, and then none, with a line in the log."""
    if tracking.mode == "none":
        return NoRun()
    for attempt in (tracking, replace(tracking, mode="offline")):
        try:
            return WandbRun(attempt, key, stage, _portable(config, staging))
        except Exception as error:
            log.warning("tracking: W&B could not start in mode %s (%s)", attempt.mode, error)
            with suppress(Exception):  # its service still holds the run's id
                importlib.import_module("wandb").teardown()
    return NoRun()


def _portable(config: Mapping[str, Any], staging: Path) -> dict[str, Any]:
    """A configuration without this machine's store: payload paths are shown from `objects` on."""
    objects = str(staging.parent.parent)

    def shorten(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: shorten(v) for k, v in value.items()}
        if isinstance(value, list):
            return [shorten(v) for v in value]
        return (
            value.removeprefix(objects).lstrip("/") if isinstance(value, str) and value.startswith(objects) else value
        )

    return shorten(config)
