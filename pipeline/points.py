"""Points of a sweep: composed configurations that share what they have in common.

Composing costs 50 ms and more, and a sweep has thousands of points but few distinct choices of groups. So each choice
is composed once (`Composition`), a point is a choice plus values (`method.beta=2`), and a stage's fields are resolved
once for every combination of the values that they depend on.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.config import check, resolved

Values = tuple[tuple[str, Any], ...]
"""(key, value) of the overrides that are laid over a composition, in order."""


class Composition:
    """One composed configuration, shared by all points that choose the same groups."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self._memo: dict[tuple[str, Values], Any] = {}
        self._reads: dict[str, frozenset[str]] = {}
        self._checked: set[Any] = set()

    def resolve(self, path: str, values: Values) -> Any:
        """The plain value at `path` under `values`. Do not change it: other points share it."""
        relevant = tuple(pair for pair in values if self._depends(path, pair[0]))
        if (path, relevant) not in self._memo:
            self._memo[path, relevant] = self._resolve(path, relevant)
        return self._memo[path, relevant]

    def _resolve(self, path: str, values: Values) -> Any:
        # parsing an interpolation costs a millisecond: go down to the few leaves that the values reach
        raw = _raw(self.config, path) if values else None
        if isinstance(raw, str) and (whole := re.fullmatch(r"\$\{([\w@]+(?:\.[\w@]+)*)\}", raw)):
            return self.resolve(whole.group(1), values)
        if isinstance(raw, dict) and not any(key == path or key.startswith(f"{path}.") for key, _ in values):
            return {key: self.resolve(f"{path}.{key}", values) for key in raw}
        with self.laid_over(values):
            return resolved(self.config, path)

    def check(self, values: Values) -> None:
        """Holds the configuration, once, and every new value against the schemas. Raises UsageError."""
        if () not in self._checked:
            check(self.config)
            self._checked.add(())
        for pair in values:
            if repr(pair) not in self._checked:
                with self.laid_over((pair,)):
                    check(self.config, pair[0])
                self._checked.add(repr(pair))

    @contextmanager
    def laid_over(self, values: Values) -> Iterator[None]:
        """The configuration with `values` in place, for as long as the context lasts.

        Raises OmegaConf's errors for keys that do not exist and values of the wrong type.
        """
        before: list[tuple[dict[Any, Any], str, Any]] = []
        try:
            for key, value in values:
                parent, _, name = key.rpartition(".")
                holder = OmegaConf.select(self.config, parent) if parent else self.config
                content = holder.__dict__["_content"] if isinstance(holder, DictConfig) else None
                if isinstance(content, dict) and name in content:
                    before.append((content, name, copy.copy(content[name])))
                OmegaConf.update(self.config, key, value, merge=True)
            yield
        finally:
            for content, name, node in reversed(before):
                content[name] = node

    def _depends(self, path: str, key: str) -> bool:
        if path not in self._reads:
            self._reads[path] = reads(self.config, path)
        return any(_related(key, other) for other in self._reads[path])


class Point:
    """One point of a sweep. `label` tells it from the others; `overrides` are all that it was written with, as text by
    key; `stages` holds its keys once the graph is built."""

    def __init__(
        self, label: str, composition: Composition, values: Values = (), overrides: Mapping[str, str] | None = None
    ) -> None:
        self.label, self.composition, self.values = label, composition, values
        self.overrides: Mapping[str, str] = overrides or {}
        self.stages: dict[str, str] = {}

    @classmethod
    def of(cls, config: DictConfig, label: str = "") -> "Point":
        """A point of a configuration that is composed already."""
        return cls(label, Composition(config))

    def resolve(self, path: str) -> Any:
        """The plain value at `path`; shared, not to be changed. Raises UsageError where it cannot be resolved."""
        return self.composition.resolve(path, self.values)

    def check(self) -> None:
        """Raises UsageError for a value outside its schema's bounds."""
        self.composition.check(self.values)

    @property
    def stage_names(self) -> Mapping[str, Any]:
        return self.composition.config.stages

    @property
    def config(self) -> DictConfig:
        """The configuration with this point's values, a copy."""
        with self.composition.laid_over(self.values):
            return copy.deepcopy(self.composition.config)


_INTERPOLATED = re.compile(r"\$\{(?:oc\.[\w.]+:)?([^{}:$,]*)(?=[}$,])")
"""The key in `${a.b}` and `${oc.select:a.b}`; in `${a.${b}}`, which may become any key below `a`, what stands: `a.`."""


def reads(config: DictConfig, path: str) -> frozenset[str]:
    """Keys that resolving `path` may look at, itself included."""
    found: set[str] = set()
    todo = [path]
    while todo:
        if (key := todo.pop()) in found:
            continue
        found.add(key)
        for where, text in _texts(_raw(config, key), key):
            for name in _INTERPOLATED.findall(text):
                up = len(name) - len(name.lstrip("."))  # dots count from the mapping that holds the text
                parts = where.split(".")
                todo.append(".".join([*parts[: len(parts) - up], name[up:]]).rstrip(".") if up else name.rstrip("."))
    return frozenset(found)


def _raw(config: DictConfig, key: str) -> Any:
    """What stands at a key before interpolation, as plain values; the interpolation on the way where there is one."""
    node: Any = config
    for part in key.split("."):
        content = node.__dict__.get("_content")
        if not isinstance(content, dict) or part not in content:
            return content if isinstance(content, str) else None
        node = content[part]
    return OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node._value()


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path, text) of every text in a plain value; items of a list have the path of the list's place."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, f"{path}.{key}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _texts(part, f"{path}.{index}")


def _related(a: str, b: str) -> bool:
    """Whether one key is the other or lies below it; everything lies below the empty key."""
    return a == b or not a or not b or a.startswith(f"{b}.") or b.startswith(f"{a}.")
