"""`tilt status [-w]`: the state of every stage of every point. Rows are stages, columns are points."""

import json
import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.graph import Graph, Node
from pipeline.plan import REUSE, Planned, plan
from pipeline.progress import title
from pipeline.store import Store
from pipeline.verbs import Request, Verb

DONE, RUNNING, FAILED, MISSING = "done", "running", "failed", "missing"
MARK = {DONE: "●", RUNNING: "◐", FAILED: "✗", MISSING: "○"}
STYLE = {DONE: "green", RUNNING: "cyan", FAILED: "red", MISSING: "dim"}


def status(request: Request) -> int:
    """Done, running, failed or missing. `-w` looks again every two seconds."""
    graph, store = request.graph(), request.store
    if "-w" not in request.flags:
        request.console.print(_view(graph, store, request.console.width))
        return 0
    with Live(_view(graph, store, request.console.width), console=request.console) as live:
        while True:
            time.sleep(2)
            live.update(_view(graph, store, request.console.width))


def _view(graph: Graph, store: Store, width: int) -> RenderableType:
    stages = plan(graph, store).stages
    states = {p.node.key: _state(p, store) for p in stages}
    if len(graph.points) == 1:
        return _details(stages, states, store)
    overview = _matrix(graph, states) if 4 * len(graph.points) + 20 <= width else _counts(graph, states)
    pressing = [p for p in stages if states[p.node.key] in (RUNNING, FAILED)]
    return Group(overview, "", _details(pressing, states, store)) if pressing else overview


def _state(p: Planned, store: Store) -> str:
    if p.state == REUSE:
        return DONE
    if any(store.leased(key) for key in [p.node.key, *p.node.parts]):
        return RUNNING
    failures = [store.root / "failures" / key / "failure.json" for key in [p.node.key, *p.node.parts]]
    return FAILED if any(path.exists() for path in failures) else MISSING


def _details(stages: Sequence[Planned], states: dict[str, str], store: Store) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "state", "seconds", "when (UTC)", "key", "figures"):
        table.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    for p in stages:
        state = states[p.node.key]
        seconds = when = figures = ""
        if p.manifest and state == DONE:
            figures = " · ".join(f"{name} {value:.4g}" for name, value in list(p.manifest.metrics.items())[:3])
            seconds, when = f"{p.manifest.seconds:.1f}", p.manifest.started[:19].replace("T", " ")
        elif state == FAILED:
            figures = _message(p.node, store)
        elif p.shards:
            figures = f"{p.shards[0]} of {p.shards[1]} shards"
        table.add_row(title(p.node), Text(state, style=STYLE[state]), seconds, when, p.node.key[:8], figures)
    return table


def _message(node: Node, store: Store) -> str:
    for key in [node.key, *node.parts]:
        path = store.root / "failures" / key / "failure.json"
        if path.exists():
            return str(json.loads(path.read_text())["message"])
    return ""


def _names(graph: Graph) -> list[str]:
    return list(dict.fromkeys(node.name for node in graph.nodes.values()))


def _matrix(graph: Graph, states: dict[str, str]) -> Group:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for number in range(len(graph.points)):
        table.add_column(str(number + 1), justify="right")
    compared = {node.name: node.key for node in graph.nodes.values() if node.key in graph.goals}
    for name in _names(graph):
        cells = [point.stages.get(name) or compared.get(name, "") for point in graph.points]
        table.add_row(name, *(Text(MARK[states[key]], style=STYLE[states[key]]) if key else "" for key in cells))
    legend = [f"{number + 1}  {point.label or 'point'}" for number, point in enumerate(graph.points)]
    marks = "   ".join(f"{mark} {state}" for state, mark in MARK.items())
    return Group(table, "", *legend, Text(marks, style="dim"))


def _counts(graph: Graph, states: dict[str, str]) -> Table:
    """For sweeps that are wider than the terminal: unique stages by state."""
    table = Table(box=None, pad_edge=False)
    for column in ("stage", *MARK):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for name in _names(graph):
        counted = Counter(states[node.key] for node in graph.nodes.values() if node.name == name and not node.shard)
        table.add_row(name, *(str(counted[state] or "") for state in MARK))
    return table


STATUS_VERBS: dict[str, Verb] = {"status": status}
