"""What would run, and why: each node of a graph is looked up in the store.

A node that is not there is compared with the published result of the same stage that differs least from it, so that the
reason names the field, the input or the definition that changed.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.expense import Expense, expense
from pipeline.graph import Graph, Node, Pinned, show
from pipeline.keys import digest
from pipeline.store import Manifest, Store

REUSE, RUN, STALE = "reuse", "run", "stale"
MARK = {REUSE: "●", RUN: "○", STALE: "↻"}


@dataclass
class Planned:
    """One node's state: `reuse`, `run` (nothing like it was published) or `stale` (something like it was)."""

    node: Node
    state: str
    reason: str
    manifest: Manifest | None = None
    seconds: float | None = None
    """Median wall time of past executions of this stage class; None where there were none."""
    cost: Expense | None = None
    """What a stage that pays is going to pay; None for others."""
    shards: tuple[int, int] | None = None
    """(published, all) shards of a stage that is not yet merged from them."""


@dataclass
class Plan:
    graph: Graph
    stages: list[Planned] = field(default_factory=list)

    @property
    def to_run(self) -> list[Planned]:
        return [planned for planned in self.stages if planned.state != REUSE]

    def seconds(self) -> float:
        """Seconds of work left, as long as such stages took before; stages that never ran are not counted."""
        return sum(planned.seconds or 0.0 for planned in self.to_run)

    def costs(self) -> list[Expense]:
        """Of all stages that are to run and pay for something."""
        return [planned.cost for planned in self.to_run if planned.cost]


def pinned(store: Store) -> Pinned:
    """Finds the code that a stage under `code: pin` keeps: that of its newest result. Reads the store when asked."""
    newest: dict[str, tuple[str, str]] = {}

    def find(image: dict[str, Any]) -> str | None:
        if not newest:
            for manifest in store.manifests():
                rest = _without_code(manifest.preimage)
                newest[rest] = max(newest.get(rest, ("", "")), (manifest.started, manifest.preimage["code"]))
        return newest.get(_without_code(image), (None, None))[1]

    return find


def _without_code(image: dict[str, Any]) -> str:
    return digest({name: value for name, value in image.items() if name != "code"})


def plan(graph: Graph, store: Store) -> Plan:
    """Looks up every node. A node is to run as soon as its own key is missing, whatever its inputs do."""
    found = {key: store.find(key) for key in graph.nodes}
    relatives: dict[str, list[Manifest]] = {}
    if not all(found.values()):
        for manifest in store.manifests():
            if "shard" not in manifest.preimage:  # a shard's time says nothing of the whole stage's
                relatives.setdefault(manifest.preimage["stage"], []).append(manifest)
    result = Plan(graph)
    for key, node in graph.nodes.items():
        if node.shard:
            continue
        manifest = found[key]
        past = relatives.get(node.target, [])
        seconds = statistics.median(m.seconds for m in past) if past else None
        if manifest:
            result.stages.append(Planned(node, REUSE, _kept(node, manifest), manifest, manifest.seconds))
            continue
        state, reason = _wanting(node, [other for other in past if other.stage == node.name], store)
        parts = (sum(found[part] is not None for part in node.parts), len(node.parts)) if node.parts else None
        result.stages.append(Planned(node, state, reason, None, seconds, expense(node, store), parts))
    return result


def _wanting(node: Node, past: list[Manifest], store: Store) -> tuple[str, str]:
    """State and reason of a node that is not published; `past` are results of the same instance."""
    if store.object(node.key).exists():
        return STALE, "its object is damaged"
    if not past:
        return RUN, "never ran"
    least = min((list(differences(node, other)) for other in past), key=len)
    return STALE, "; ".join(least[:3]) + (f"; and {len(least) - 3} more" if len(least) > 3 else "")


def _kept(node: Node, manifest: Manifest) -> str:
    """What to say of a result whose key was not made of the code as it is now."""
    if node.tracked:
        return ""
    changed = [told.removeprefix("code: ") for told in _code_differences(manifest.code, node.code)]
    return f"code not tracked; changed since: {', '.join(changed[:3])}" if changed else ""


def differences(node: Node | Manifest, other: Manifest) -> Iterator[str]:
    """How a node, or a published result, differs from another published one: a phrase for each difference."""
    old, new = other.preimage, node.preimage
    before, after = flat(old["config"]), flat(new["config"])
    upstream = {key: name for name, key in node.inputs.items()}
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        if path.endswith("$stage"):
            yield f"input {upstream.get(after.get(path, ''), path.removesuffix('.$stage'))} changed"
        elif path.endswith("$file"):
            yield f"file {path.removesuffix('.$file')} changed"
        else:
            yield f"{path}: {_spelt(before, path)} → {_spelt(after, path)}"
    if old.get("version", 0) != new.get("version", 0):
        yield f"version: {old.get('version', 0)} → {new.get('version', 0)}"
    if old["code"] != new["code"]:
        yield from _code_differences(other.code, node.code)
    for name, release in new["libraries"].items():
        if old["libraries"].get(name) != release:
            yield f"{name} {old['libraries'].get(name)} → {release}"
    if old["schema"] != new["schema"]:
        yield f"key schema {old['schema']} → {new['schema']}"


def _spelt(values: dict[str, Any], path: str) -> str:
    return show(values[path]) if path in values else "absent"


def _code_differences(old: Any, new: Any) -> Iterator[str]:
    for module in sorted(old.keys() | new.keys()):
        if module not in old or module not in new:
            yield f"code: {module} {'added' if module in new else 'removed'}"
            continue
        for name in sorted(old[module].keys() | new[module].keys()):
            if old[module].get(name) != new[module].get(name):
                yield f"code: {module}.{name}" if name else f"code: {module} (outside of definitions)"


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """A nested configuration as {dotted path: value}."""
    if isinstance(value, dict) and value:
        return {k: v for key, part in value.items() for k, v in flat(part, f"{path}.{key}" if path else key).items()}
    if isinstance(value, list) and value and any(isinstance(part, dict | list) for part in value):
        return {k: v for i, part in enumerate(value) for k, v in flat(part, f"{path}.{i}").items()}
    return {path: value}
