"""Verbs that run something: `tilt run`, `tilt resume`. A verb returns the exit code of the process.

Others: `plan_verbs.py` (what would run), `status.py` (how far it is), `store_verbs.py` (what is in the store).
"""

import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text

from pipeline.config import Schemas, nearest
from pipeline.errors import PointFailed, UsageError, no_space
from pipeline.execute import Execution, Outcome
from pipeline.executors import Executor, InProcess, Local
from pipeline.graph import COMPARE, Graph
from pipeline.plan import pinned
from pipeline.points import Point
from pipeline.progress import Terminal, title
from pipeline.runs import publish_links
from pipeline.shards import split
from pipeline.store import Store
from pipeline.tracking import Tracking, settled
from pipeline.upkeep import remember


@dataclass
class Request:
    """One call of `tilt`."""

    points: Sequence[Point]
    folder: Path
    """The run's own, not made yet."""
    console: Console
    words: Sequence[str] = ()
    """Words on the command line that are neither flags nor overrides: stage names, keys."""
    flags: frozenset[str] = frozenset()
    """`--json`, `--dry-run`, …"""
    ages: Mapping[str, str] = field(default_factory=dict)
    """Values of flags that take one: `--keep-runs`."""
    returned: list[Any] = field(default_factory=list)
    """What each point is worth, for adaptive sweepers; a PointFailed where its stages did not all succeed."""
    whole: Schemas = field(default_factory=dict)
    """Schemas of what stands in the configuration itself and in no group."""

    def graph(self) -> Graph:
        """Raises UsageError for whatever cannot be planned."""
        for point in self.points:
            point.check(self.whole)
        graph = Graph(self.points, pinned(self.store))
        split(graph, self.store)
        return graph

    @cached_property
    def store(self) -> Store:
        self.points[0].check(self.whole)
        return Store(Path(self.config.store).expanduser())

    @cached_property
    def config(self) -> DictConfig:
        """The first point's configuration, for what all points share: store, runs, executor, tracking."""
        return self.points[0].config


Verb = Callable[[Request], int]


def run(request: Request) -> int:
    """Runs what is missing of the graph, then prints the summaries of the goals and a table of failures."""
    graph, store, config, folder, console = (
        request.graph(),
        request.store,
        request.config,
        request.folder,
        request.console,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"runs: {folder} cannot be written ({error.strerror}); set runs=/another/folder") from error
    remember(store, folder.name, graph)
    tracking = settled(_tracking(config, folder))
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    with Terminal(console, len(graph.nodes)) as view:
        outcome = Execution(graph, store, _executor(config), view, tracking, config.executor.retries).run()
    try:
        publish_links(folder, graph, store)
    except OSError as error:
        if not no_space(error):
            raise
        raise UsageError(
            f"runs: no space left for {folder}; set runs=/another/disk (results are in the store)"
        ) from error
    _show_goals(graph, store, outcome, console)
    _show_failures(outcome, console)
    if any((folder / name).exists() for name in ("report.html", "comparison.csv")):
        console.print(f"Report: {folder / 'report.html'}   Table: {folder / 'comparison.csv'}", soft_wrap=True)
    request.returned = [worth(point, store, outcome, config.get("objective")) for point in graph.points]
    return outcome.exit_code


def worth(point: Point, store: Store, outcome: Outcome, objective: Any) -> Any:
    """The figure that `objective` names (`stage.metric`, or several) of a point's results; None where it has none."""
    for key in point.stages.values():
        if key in outcome.failed or key in outcome.skipped:
            failure = outcome.failed.get(key) or outcome.failed[outcome.skipped[key]]
            return PointFailed(f"{point.label or 'point'}: {failure.message}", outcome.exit_code)
    names = [objective] if isinstance(objective, str) else list(objective or ())
    found = []
    for stage, _, metric in (name.partition(".") for name in names):
        manifest = store.find(point.stages[stage]) if stage in point.stages else None
        if manifest is None:
            return None
        if metric not in manifest.metrics:
            raise UsageError(f"objective: {stage} reports no '{metric}'{nearest(metric, list(manifest.metrics))}")
        found.append(manifest.metrics[metric])
    return found[0] if isinstance(objective, str) else found or None


RUN_VERBS: dict[str, Verb] = {"run": run, "resume": run}


def _executor(config: DictConfig) -> Executor:
    settings: dict[str, Any] = OmegaConf.to_container(config.executor, resolve=True)  # type: ignore[assignment]
    if settings["kind"] == "inprocess":
        return InProcess(settings["cores"], settings["memory"])
    return Local(settings["cores"], settings["memory"], settings["preload"])


def _tracking(config: DictConfig, folder: Path) -> Tracking:
    settings: dict[str, Any] = OmegaConf.to_container(config.tracking, resolve=True)  # type: ignore[assignment]
    settings |= {"group": str(config.name), "folder": str(folder.absolute())}
    return Tracking(**settings)


def _show_goals(graph: Graph, store: Store, outcome: Outcome, console: Console) -> None:
    for key in graph.goals:
        summary = store.payload(key) / "summary.txt"
        if summary.exists():
            console.print()
            console.print(summary.read_text(), markup=False, highlight=False, soft_wrap=True)
        elif graph.nodes[key].name != COMPARE and key not in outcome.failed and key not in outcome.skipped:
            console.print(f"{title(graph.nodes[key])}: {store.payload(key)}", soft_wrap=True)


def _show_failures(outcome: Outcome, console: Console) -> None:
    """One table: the stage, why, and where its log is; lines are never folded, so that paths can be copied."""
    if not outcome.failed:
        return
    console.print()
    console.print(Text(f"{len(outcome.failed)} failed, {len(outcome.skipped)} skipped", style="bold red"))
    width = max(len(title(failure.node)) for failure in outcome.failed.values())
    for failure in outcome.failed.values():
        line = Text(f"  {title(failure.node):<{width}}  ") + Text(failure.message, style="red")
        console.print(line, soft_wrap=True)
        lost = sum(root == failure.node.key for root in outcome.skipped.values())
        more = [f"log: {failure.log}"] if failure.log and failure.kind not in ("input", "disk") else []
        more += [f"skipped after it: {lost}"] if lost else []
        for text in more:
            console.print(Text(f"  {'':<{width}}  {text}", style="dim"), soft_wrap=True)
    console.print("  run again after the fix: only what is missing will run", style="dim")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
