"""Verbs that look and run nothing: plan, graph."""

import json

from rich.console import Console, Group
from rich.text import Text

from pipeline.plan import MARK, Plan, Planned, plan
from pipeline.progress import title
from pipeline.verbs import Request, Verb

_STYLE = {"reuse": "blue", "run": "cyan", "stale": "yellow"}


def plan_(request: Request) -> int:
    """Shows what would run, why, and what it would take; runs nothing. `--json` prints it as JSON."""
    graph = request.graph()
    planned = plan(graph, request.store)
    if "--json" in request.flags:
        print(json.dumps(_figures(request, planned), indent=1))
        return 0
    for p in planned.stages:
        request.console.print(_line(p), soft_wrap=True)
    _totals(request, planned, request.console)
    return 0


def _line(p: Planned) -> Text:
    time = f"{p.seconds:7.1f} s" if p.seconds is not None else "      ? s"
    said = [p.reason] if p.reason else []
    if p.shards:
        said.append(f"{p.shards[0]} of {p.shards[1]} shards are there")
    if p.cost:
        said.append(p.cost.note or f"{p.cost.calls:,} calls")
    mark = Text(f"{MARK[p.state]} ", style=_STYLE[p.state])
    return mark + Text(f"{title(p.node):<40}") + Text(f"{time}  ", style="dim") + Text("; ".join(said), style="dim")


def _totals(request: Request, planned: Plan, console: Console) -> None:
    graph, left = planned.graph, planned.to_run
    unique = len(planned.stages)
    untimed = sum(p.seconds is None for p in left)
    console.print(
        f"{len(request.points)} points, {graph.naive} stages, {unique} unique: "
        f"{unique - len(left)} reused, {len(left)} to run, about {planned.seconds():.0f} s of work"
        + (f" and {untimed} never timed" if untimed else ""),
        soft_wrap=True,
    )
    costs = planned.costs()
    known = [cost.dollars for cost in costs if cost.dollars is not None]
    if calls := sum(cost.calls for cost in costs):
        told = [f"about ${sum(known):.2f}"] if known else []
        told += [f"stages without a price: {len(costs) - len(known)}"] if len(known) < len(costs) else []
        console.print(f"paid answers: {calls:,} calls, {' and '.join(told)}", soft_wrap=True)


def _figures(request: Request, planned: Plan) -> dict[str, object]:
    return {
        "points": len(request.points),
        "naive": planned.graph.naive,
        "unique": len(planned.stages),
        "seconds": planned.seconds(),
        "dollars": sum(cost.dollars or 0.0 for cost in planned.costs()),
        "stages": [
            {
                "stage": p.node.name,
                "key": p.node.key,
                "state": p.state,
                "reason": p.reason,
                "points": [point.label for point in p.node.points],
                "seconds": p.seconds,
                "dollars": p.cost.dollars if p.cost else 0.0,
                "shards": list(p.shards) if p.shards else None,
            }
            for p in planned.stages
        ],
    }


def graph_(request: Request) -> int:
    """`tilt graph [--mermaid]`: the unique stages and the inputs of each."""
    graph = request.graph()
    if "--mermaid" not in request.flags:
        lines = [f"{title(n)} ← {', '.join(n.inputs) or 'nothing'}" for n in graph.nodes.values()]
        request.console.print(Group(*lines), markup=False, highlight=False, soft_wrap=True)
        return 0
    print("graph LR")
    for node in graph.nodes.values():
        print(f'  {node.key[:8]}["{title(node)}"]')
        for upstream in node.inputs.values():
            print(f"  {upstream[:8]} --> {node.key[:8]}")
    return 0


PLAN_VERBS: dict[str, Verb] = {"plan": plan_, "graph": graph_}
