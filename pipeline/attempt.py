"""One attempt at a node: what the process that runs it is told, and what is made of a failure."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.code import stamps
from pipeline.graph import Graph, Node, with_paths
from pipeline.stage import Spec
from pipeline.store import Store
from pipeline.tracking import Tracking


@dataclass
class Failure:
    node: Node
    kind: str
    message: str
    """One line; names the configuration key where a field is at fault."""
    log: Path | None
    exit_code: int | None = None
    """The error's own exit code, where it has one (a budget that was reached)."""


@dataclass
class Attempts:
    """Makes specs and failures for the nodes of one graph."""

    graph: Graph
    store: Store
    tracking: Tracking

    def __post_init__(self) -> None:
        self._commit = _commit()

    def spec(self, node: Node, cores: int, number: int, seconds: Mapping[str, float], reused: set[str]) -> Spec:
        """What attempt `number` (from 1) at a node needs. Makes its staging folder; raises OSError where it cannot."""
        ancestors = [self.graph.nodes[key] for key in self.graph.ancestors(node.key)]
        return Spec(
            key=node.key,
            name=node.name,
            config=with_paths(node.config, self.store.payload),
            staging=self.store.stage(node.key),
            threads=max(1, cores // node.resources.processes),
            preimage=node.preimage,
            code=node.code,
            inputs=dict(node.inputs),
            commit=self._commit,
            lineage=_lineage(ancestors, seconds, reused),
            tracking=self.tracking if not node.shard else Tracking(),
            sources=stamps(node.code) if node.tracked else {},
            files=node.files,
            shard=node.shard,
            parts=[str(self.store.payload(part)) for part in node.parts],
            parts_seconds=sum(seconds.get(part, 0.0) for part in node.parts),
            processes=1 if node.parts else node.resources.processes,
            timeout=node.resources.timeout,
            attempt=number,
        )

    def failure(self, node: Node, spec: Spec, told: Mapping[str, Any]) -> Failure:
        """The failure in the user's words. Its log is kept; its checkpoints too, where another attempt may use them."""
        message = told["message"]
        if told["kind"] in ("input", "timeout"):
            message = f"{node.config_key(told['field'])}: {message}"
        elif told["kind"] == "disk":
            message = (
                f"store: no space or permission while '{node.name}' was writing to {self.store.root} ({message}); "
                "free some space or set store=/another/disk, then run again: what is finished is kept"
            )
        keep = told["kind"] in ("disk", "timeout") or bool(told.get("retryable"))
        try:
            log = self.store.fail(spec.staging, node.key, {**told, "stage": node.name}, keep_checkpoints=keep)
        except OSError:  # a full disk cannot even take the log
            log = None
            self.store.discard(spec.staging)
        return Failure(node, told["kind"], message, log, told.get("exit_code"))


def _lineage(nodes: Sequence[Node], seconds: Mapping[str, float], reused: set[str]) -> list[dict[str, Any]]:
    """The graph upstream of a stage as it is handed to it: one mapping a node, in graph order."""
    return [
        {
            "stage": node.name,
            "key": node.key,
            "inputs": list(node.inputs.values()),
            "seconds": seconds.get(node.key, 0.0),
            "reused": node.key in reused,
            "label": node.points[0].label if len(node.points) == 1 else "",
        }
        for node in nodes
        if not node.shard
    ]


def _commit() -> str:
    """The git commit of the working directory, empty outside of a checkout."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
