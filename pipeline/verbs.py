"""What `tilt` can be asked to do with the points of a run. Each verb returns the process's exit code.

`VERBS` is the whole list; verbs that look after the store rather than run something are in `store_verbs.py`.
"""

import json
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

from pipeline.errors import UsageError, no_space
from pipeline.execute import Execution, Outcome
from pipeline.executors import Executor, InProcess, Local
from pipeline.graph import COMPARE, Graph
from pipeline.plan import MARK, plan
from pipeline.points import Point
from pipeline.progress import Terminal, title
from pipeline.runs import publish_links
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
    """What stands on the command line and is neither a flag nor an override: stage names, keys."""
    flags: frozenset[str] = frozenset()
    """`--json`, `--dry-run`, …"""
    ages: Mapping[str, str] = field(default_factory=dict)
    """Values of flags that take one: `--keep-runs`."""

    def graph(self) -> Graph:
        """Raises UsageError for whatever cannot be planned."""
        for point in self.points:
            point.check()
        return Graph(self.points)

    def store(self) -> Store:
        return Store(Path(self.config.store).expanduser())

    @cached_property
    def config(self) -> DictConfig:
        """Of the first point; what all share (store, runs, executor, tracking) is read here."""
        return self.points[0].config


Verb = Callable[[Request], int]


def run(request: Request) -> int:
    """Runs what is missing of the graph, then shows what the goals have to say."""
    graph, store, config, folder, console = (
        request.graph(),
        request.store(),
        request.config,
        request.folder,
        request.console,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"runs: {folder} cannot be written ({error.strerror}); set runs=/another/folder") from error
    remember(store, folder.name, graph.nodes)
    tracking = settled(_tracking(config, folder))
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    with Terminal(console, len(graph.nodes)) as view:
        outcome = Execution(graph, store, _executor(config), view, tracking).run()
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
    return outcome.exit_code


def plan_(request: Request) -> int:
    """Shows what would run, and why; runs nothing. `--json` prints it as JSON."""
    graph, console = request.graph(), request.console
    planned = plan(graph, request.store())
    if "--json" in request.flags:
        stages = [
            {
                "stage": p.node.name,
                "key": p.node.key,
                "state": p.state,
                "reason": p.reason,
                "points": [point.label for point in p.node.points],
            }
            for p in planned.stages
        ]
        figures = {"points": len(request.points), "naive": graph.naive, "unique": len(graph.nodes), "stages": stages}
        print(json.dumps(figures, indent=1))
        return 0
    for p in planned.stages:
        style = {"reuse": "blue", "run": "cyan", "stale": "yellow"}[p.state]
        time = f"{p.seconds:7.1f} s" if p.seconds is not None else "      ? s"
        line = Text(f"{MARK[p.state]} ", style=style) + Text(f"{title(p.node):<40}") + Text(f"{time}  ", style="dim")
        console.print(line + Text(p.reason, style="dim"), soft_wrap=True)
    left = planned.to_run
    untimed = sum(p.seconds is None for p in left)
    console.print(
        f"{len(request.points)} points, {graph.naive} stages, {len(graph.nodes)} unique: "
        f"{len(graph.nodes) - len(left)} reused, {len(left)} to run, about {planned.seconds():.0f} s of work"
        + (f" and {untimed} never timed" if untimed else ""),
        soft_wrap=True,
    )
    return 0


VERBS: dict[str, Verb] = {"run": run, "resume": run, "plan": plan_}


def _executor(config: DictConfig) -> Executor:
    settings: dict[str, Any] = OmegaConf.to_container(config.executor, resolve=True)  # type: ignore[assignment]
    if settings["kind"] == "inprocess":
        return InProcess(settings["cores"])
    return Local(settings["cores"], tuple(settings["preload"]))


def _tracking(config: DictConfig, folder: Path) -> Tracking:
    settings: dict[str, Any] = OmegaConf.to_container(config.tracking, resolve=True)  # type: ignore[assignment]
    return Tracking(**settings | {"group": config.name, "folder": str(folder.absolute())})


def _show_goals(graph: Graph, store: Store, outcome: Outcome, console: Console) -> None:
    for key in graph.goals:
        summary = store.payload(key) / "summary.txt"
        if summary.exists():
            console.print()
            console.print(summary.read_text(), markup=False, highlight=False, soft_wrap=True)
        elif graph.nodes[key].name != COMPARE and key not in outcome.failed and key not in outcome.skipped:
            console.print(f"{title(graph.nodes[key])}: {store.payload(key)}", soft_wrap=True)


def _show_failures(outcome: Outcome, console: Console) -> None:
    if not outcome.failed:
        return
    console.print()
    for failure in outcome.failed.values():
        console.print(Text(failure.message, style="red"), soft_wrap=True)
        if failure.kind == "error" and failure.log:
            console.print(f"  log: {failure.log}", soft_wrap=True)
    if outcome.skipped:
        console.print(f"  {len(outcome.skipped)} stages that need these were skipped; run again and only they will run")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
