"""The function that Hydra calls with a point (`__call__`), and the graph launcher with all points at once (`many`)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from pipeline.config import Schemas, register_resolvers
from pipeline.errors import PointFailed, UsageError
from pipeline.points import Point
from pipeline.verbs import RUN_VERBS, Request, Verb
from tilt.command_line import CommandLine

KNOWN_BEFOREHAND = ("BlockSweeper", "BasicSweeper")
"""Sweepers that know all their points before the first one runs."""


class Task:
    """One verb, to be called with the points that Hydra's sweeper makes.

    A sweeper that learns calls several times. Each call is planned with all points before it, so that the comparison
    holds every point and earlier results are reused. A task can be pickled: some launchers call it in other processes.
    """

    def __init__(self, verb: Verb, line: CommandLine, whole: Schemas) -> None:
        self.verb, self.line, self.whole = verb, line, whole
        self.codes: list[int] = []
        self.refused: list[UsageError] = []
        self._points: list[Point] = []
        self._process = os.getpid()

    def __call__(self, config: DictConfig) -> Any:
        """What the point is worth (`objective`). Called in another process than `tilt`'s own, it raises a failure."""
        register_resolvers()
        try:
            if config.get("sweep") is not None and HydraConfig.get().mode == RunMode.RUN:
                raise UsageError(f"sweep: {config.sweep} is a sweep, and this is one point; add -m")
            (value,) = self._run([Point.of(config)], Path(HydraConfig.get().runtime.output_dir))
        except UsageError as error:
            if os.getpid() != self._process:
                raise
            self.refused.append(error)  # raised here, Hydra would print a line of its own before ours
            return None
        if isinstance(value, PointFailed) and os.getpid() != self._process:
            raise value
        return value

    def many(self, points: Sequence[Point], folder: Path) -> list[Any]:
        """What each of the points is worth, or a PointFailed in its place.

        Raises UsageError where the sweeper learns from what points are worth, for a verb that only looks and where no
        `objective` is named.
        """
        sweeper = str(HydraConfig.get().sweeper["_target_"]).rpartition(".")[2]
        if sweeper not in KNOWN_BEFOREHAND:
            if self.verb not in RUN_VERBS.values():
                raise UsageError(f"hydra/sweeper: {sweeper} chooses its points while it runs; only tilt run takes it")
            if points[0].config.get("objective") is None:
                raise UsageError(
                    f"objective: {sweeper} learns from what points are worth; name a stage's metric, such as "
                    "objective=score.validation/proxy"
                )
        self._points += points
        return self._run(self._points, folder)[-len(points) :]

    def exit_code(self) -> int:
        """The worst of all calls in this process. Raises the first UsageError that was kept back."""
        if self.refused:
            raise self.refused[0]
        return max(self.codes, default=0)

    def _run(self, points: Sequence[Point], folder: Path) -> list[Any]:
        request = Request(
            list(points), folder, Console(), self.line.words, self.line.own, self.line.values, whole=self.whole
        )
        self.codes.append(self.verb(request))
        return request.returned or [None] * len(points)
