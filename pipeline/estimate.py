"""What a stage is going to pay, asked of the stage itself before it runs.

A stage that pays has a method `estimate()` which returns `{"dollars", "calls", "tokens", "note"}` from its fields
alone; `dollars` is None where a price is unknown. Only such a stage's module is imported while planning, so it must be
light; what is configured inside its fields stays a plain mapping, so that nothing heavy is built.
"""

import importlib
from dataclasses import dataclass

from pipeline.build import NO_FIELDS
from pipeline.code import declares
from pipeline.graph import Node, with_paths
from pipeline.store import Store


@dataclass(frozen=True)
class Estimate:
    dollars: float | None
    """None: cannot be told."""
    calls: int = 0
    tokens: int = 0
    note: str = ""
    """On one line: what it is made of, or why it cannot be told."""


def estimate(node: Node, store: Store) -> Estimate | None:
    """None for stages that do not pay. Never fails: what cannot be told is said in the note."""
    if not declares(node.target, "estimate"):
        return None
    try:
        module, _, name = node.target.rpartition(".")
        fields = with_paths({k: v for k, v in node.config.items() if k not in NO_FIELDS}, store.payload)
        return Estimate(**getattr(importlib.import_module(module), name)(**fields).estimate())
    except Exception as error:  # an estimate must not keep anybody from planning
        return Estimate(None, note=f"no estimate: {type(error).__name__}: {error}".splitlines()[0])
