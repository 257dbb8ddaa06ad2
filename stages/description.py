"""A stage as plain data and back: how another process is told what to run."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any


def described(value: Any) -> Any:
    """A dataclass as its configuration: `_target_` and its fields, what is no plain value (a handle) left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        plain = {k: described(v) for k, v in kept.items() if not callable(v) or dataclasses.is_dataclass(v)}
        return {"_target_": f"{type(value).__module__}.{type(value).__qualname__}"} | plain
    if isinstance(value, dict):
        return {str(k): described(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [described(v) for v in value]
    return {"_path_": str(value.absolute())} if isinstance(value, Path) else value


def rebuilt(value: Any) -> Any:
    """The inverse of `described`."""
    if isinstance(value, list):
        return [rebuilt(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "_path_" in value:
        return Path(value["_path_"])
    built = {k: rebuilt(v) for k, v in value.items() if k != "_target_"}
    if "_target_" not in value:
        return built
    module, _, name = value["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**built)
