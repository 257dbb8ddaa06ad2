"""What a stage is going to pay. The stage itself is asked, before it runs (`pipeline.protocol.Estimated`)."""

import importlib
from dataclasses import dataclass

from pipeline.build import NO_FIELDS
from pipeline.code import declares
from pipeline.graph import Node, with_paths
from pipeline.store import Store


@dataclass(frozen=True)
class Expense:
    """What a stage says it is going to pay for."""

    dollars: float | None
    """None: cannot be told."""
    calls: int = 0
    """Questions to a model that somebody else runs."""
    tokens: int = 0
    note: str = ""
    """On one line: what it is made of, or why it cannot be told."""


def expense(node: Node, store: Store) -> Expense | None:
    """None for stages that do not pay. Never fails: what cannot be told is said in the note."""
    if not declares(node.target, "estimate"):
        return None
    try:
        module, _, name = node.target.rpartition(".")
        fields = with_paths({k: v for k, v in node.config.items() if k not in NO_FIELDS}, store.payload)
        return Expense(**getattr(importlib.import_module(module), name)(**fields).estimate())
    except Exception as error:  # nobody is kept from planning by it
        return Expense(None, note=f"no estimate: {type(error).__name__}: {error}".splitlines()[0])
