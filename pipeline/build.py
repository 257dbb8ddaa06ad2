"""Makes the object that runs from a stage's resolved configuration."""

import importlib
from typing import Any

from pipeline.keys import FOR_THE_RUNNER

NO_FIELDS = ("_target_", *FOR_THE_RUNNER)
"""Keys of a stage's configuration that its class is not given."""


class NotAField(Exception):
    """A configured name that the class it configures does not take: (path, problem)."""


def build(config: Any, path: str = "") -> Any:
    """Instantiates `_target_` mappings, innermost first. Raises NotAField where a class refuses a field's name."""
    if isinstance(config, list):
        return [build(value, f"{path}.{i}" if path else str(i)) for i, value in enumerate(config)]
    if not isinstance(config, dict):
        return config
    skipped = ("_target_",) if path else NO_FIELDS
    values = {k: build(v, f"{path}.{k}" if path else k) for k, v in config.items() if k not in skipped}
    if "_target_" not in config:
        return values
    module, _, name = config["_target_"].rpartition(".")
    kind = getattr(importlib.import_module(module), name, None)
    if kind is None:
        raise NotAField(f"{path}._target_".lstrip("."), f"{module} has no {name}")
    names = getattr(kind, "__dataclass_fields__", None)
    for given in values if names is not None else ():
        if given not in names:  # type: ignore[operator]
            raise NotAField(f"{path}.{given}".lstrip("."), f"{name} has no such field; it has {', '.join(names)}")  # type: ignore[arg-type]
    return kind(**values)
