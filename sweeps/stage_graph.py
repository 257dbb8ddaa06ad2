"""The graph of stages behind a comparison, drawn as inline SVG.

Stages lie in layers from left to right, each just before the first stage that needs it. An edge that skips layers runs
through waypoints. All long edges of one stage share their waypoints: a stage that many others need has one line, which
parts only at its end.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

NODE_WIDTH, NODE_HEIGHT = 122, 38
LAYER_WIDTH, ROW_HEIGHT = 164, 48
WAYPOINT = "\0waypoint"
END = "\0compare"


def draw(lineage: Sequence[Mapping[str, Any]]) -> str:
    """SVG of the stages in `lineage` (`stage`, `key`, `inputs`, `seconds`, `reused`), closed by the comparison itself.

    >>> draw([]) == ""
    True
    """
    if not lineage:
        return ""
    nodes = {node["key"]: node for node in lineage}
    inputs = {key: [i for i in dict.fromkeys(node["inputs"]) if i in nodes] for key, node in nodes.items()}
    used = {upstream for upstreams in inputs.values() for upstream in upstreams}
    inputs[END] = [key for key in nodes if key not in used]
    layer = _layers(inputs)
    edges, layers = _routed(inputs, layer)
    place = _placed(layers, edges)
    rows = max(len(names) for names in layers)
    width, height = len(layers) * LAYER_WIDTH - (LAYER_WIDTH - NODE_WIDTH) + 4, rows * ROW_HEIGHT
    lines = [_edge(place[a], place[b]) for a, b in edges]
    lines += [f'<path d="M{x:g} {y:g}h{NODE_WIDTH}"/>' for key, (x, y) in place.items() if key.startswith(WAYPOINT)]
    boxes = [_box(nodes.get(key), place[key]) for names in layers for key in names if not key.startswith(WAYPOINT)]
    return (
        f'<svg class="stages" viewBox="-2 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="Graph of {len(nodes)} stages">{"".join(lines)}{"".join(boxes)}</svg>'
    )


def _layers(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Layer of every stage: the last is the comparison's, each other one lies just before its earliest consumer."""
    distance = dict.fromkeys(inputs, 0)
    for _ in inputs:  # as many rounds as the longest path could need
        changed = False
        for key, upstreams in inputs.items():
            for upstream in upstreams:
                if distance[upstream] < distance[key] + 1:
                    distance[upstream], changed = distance[key] + 1, True
        if not changed:
            break
    deepest = max(distance.values())
    return {key: deepest - steps for key, steps in distance.items()}


def _routed(
    inputs: Mapping[str, Sequence[str]], layer: Mapping[str, int]
) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Edges between neighbouring layers, and the names in each layer, waypoints included."""
    layers: list[list[str]] = [[] for _ in range(max(layer.values()) + 1)]
    for key, level in layer.items():
        layers[level].append(key)
    edges: dict[tuple[str, str], None] = {}
    for key, upstreams in inputs.items():
        for upstream in upstreams:
            last = upstream
            for level in range(layer[upstream] + 1, layer[key]):
                point = f"{WAYPOINT}{level} {upstream}"
                if point not in layers[level]:
                    layers[level].append(point)
                edges[last, point] = None
                last = point
            edges[last, key] = None
    return list(edges), layers


def _placed(layers: list[list[str]], edges: Sequence[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """Left middle of every name; layers are ordered by the mean position of their neighbours (barycentre sweeps)."""
    neighbours: dict[str, list[str]] = {name: [] for names in layers for name in names}
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    tallest = max(len(names) for names in layers)

    def rows() -> dict[str, float]:
        return {name: row + (tallest - len(names)) / 2 for names in layers for row, name in enumerate(names)}

    for sweep in range(8):
        for names in layers if sweep % 2 == 0 else reversed(layers):
            height = rows()
            names.sort(key=lambda name: sum(height[n] for n in neighbours[name]) / max(1, len(neighbours[name])))
    return {
        name: (level * LAYER_WIDTH, (row + (tallest - len(names)) / 2 + 0.5) * ROW_HEIGHT)
        for level, names in enumerate(layers)
        for row, name in enumerate(names)
    }


def _edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = (start[0] + NODE_WIDTH, start[1]), end
    bend = (x1 - x0) / 2
    return f'<path d="M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}"/>'


def _box(node: Mapping[str, Any] | None, place: tuple[float, float]) -> str:
    """A stage: its name with its time below; or, where it belongs to one point, beside it, and the point below."""
    x, y = place[0], place[1] - NODE_HEIGHT / 2
    if node is None:
        kind, name, beside, below, title = "end", "compare", "", "this page", "the comparison"
    else:
        kind = "reused" if node.get("reused") else "ran"
        name, took, point = str(node["stage"]), duration(node.get("seconds")), _point(node.get("label") or "")
        beside, below = (took, point) if point else ("", f"{took} · reused" if kind == "reused" else took)
        title = " · ".join(str(part) for part in (name, node.get("label"), node["key"][:12], took, kind) if part)
    room = 16 - len(beside)
    shown = name if len(name) <= room else name[: room - 1] + "…"
    end = f'<text class="time" x="{NODE_WIDTH - 10}" y="16" text-anchor="end">{escape(beside)}</text>' if beside else ""
    return (
        f'<g class="{kind}" transform="translate({x:g} {y:g})"><title>{escape(title)}</title>'
        f'<rect width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="6"/><text x="10" y="16">{escape(shown)}</text>'
        f'{end}<text class="time" x="10" y="30">{escape(below)}</text></g>'
    )


def _point(label: str) -> str:
    """The first overrides of a point, as many as its box has room for.

    >>> _point("vas beta=4.0 k=20 size=300"), _point("method=vas,method.beta=4.0")
    ('vas beta=4.0 k=20', 'vas beta=4.0')
    """
    text = ""
    for override in label.replace(",", " ").split():
        key, _, value = override.partition("=")
        word = f"{key.rpartition('.')[2]}={value}" if value and key != "method" else value or key
        if len(longer := f"{text} {word}".strip()) > 17:
            return text or longer[:16] + "…"
        text = longer
    return text


def duration(seconds: float | None) -> str:
    """A time as people say it.

    >>> [duration(s) for s in (0.04, 7.26, 83.0, 7380.0, None)]
    ['0.0 s', '7.3 s', '1:23 min', '2:03 h', '–']
    """
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
