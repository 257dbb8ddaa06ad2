"""Points of a sweep. Points that choose the same groups share one composed configuration.

Composing costs 50 ms or more. A sweep may have thousands of points but has few choices of groups, so each choice is
composed once (`Composition`). A point is a composition and values laid over it (`method.beta=2`). A stage's fields are
resolved once for each combination of the values that they depend on.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.config import Schemas, check, resolved
from pipeline.interpolation import depends_on, written

Values = tuple[tuple[str, Any], ...]
"""(key, value) of the overrides that are laid over a composition, in order."""


class Composition:
    """One composed configuration, shared by all points that choose the same groups."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self._resolved: dict[tuple[str, str], Any] = {}
        self._keys: dict[str, frozenset[str]] = {}
        """By path, the keys that it depends on."""
        self._depends: dict[tuple[str, str], bool] = {}
        """By path and key, whether a value at the key can change the one at the path."""
        self._checked: set[str] = set()

    def resolve(self, path: str, values: Values) -> Any:
        """The plain value at `path` under `values`. Do not change it: other points share it."""
        relevant = self.relevant(path, values)
        memo = path, repr(relevant)  # as text, since True and 1 are equal
        if memo not in self._resolved:
            self._resolved[memo] = self._resolve(path, relevant)
        return self._resolved[memo]

    def _resolve(self, path: str, values: Values) -> Any:
        # parsing an interpolation costs a millisecond: go down to the few leaves that the values reach
        where, text = written(self.config, path.split(".")) if values else ([], None)
        if isinstance(text, str) and (whole := re.fullmatch(r"\$\{([\w@]+(?:\.[\w@]+)*)\}", text)):
            return self.resolve(".".join([whole.group(1), *path.split(".")[len(where) :]]), values)
        if isinstance(text, dict) and not any(key == path or key.startswith(f"{path}.") for key, _ in values):
            return {key: self.resolve(f"{path}.{key}", values) for key in text}
        with self.laid_over(values):
            return resolved(self.config, path)

    def relevant(self, path: str, values: Values) -> Values:
        """Those of the values that the value at `path` depends on."""
        return tuple([pair for pair in values if self._reached(path, pair[0])])

    def _reached(self, path: str, key: str) -> bool:
        if (path, key) not in self._depends:
            if path not in self._keys:
                self._keys[path] = depends_on(self.config, path)
            self._depends[path, key] = any(_related(key, other) for other in self._keys[path])
        return self._depends[path, key]

    def check(self, values: Values, whole: Schemas) -> None:
        """Holds the configuration, once, and every new value against their schemas. Raises UsageError.

        `whole` are the schemas of what stands in no group; they have to be the same in every call.
        """
        if "" not in self._checked:
            check(self.config, whole)
            self._checked.add("")
        for pair in values:
            if repr(pair) not in self._checked:
                with self.laid_over((pair,)):
                    check(self.config, whole, pair[0])
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


class Point:
    """One point of a sweep: a composition and the values laid over it.

    `label` is its name among the points of the sweep. `overrides` are all overrides that it was written with: text by
    key. `stages` holds the keys of its stages, by name, once the graph is built.
    """

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

    def variant(self, path: str) -> tuple[Composition, str, str]:
        """The same for points that share the value at `path`: a key to keep under what is made of that value."""
        return self.composition, path, repr(self.composition.relevant(path, self.values))

    def check(self, whole: Schemas) -> None:
        """Raises UsageError for a value outside its schema's bounds; `whole` are those of what stands in no group."""
        self.composition.check(self.values, whole)

    @property
    def stage_names(self) -> Mapping[str, Any]:
        return self.composition.config.stages

    @property
    def config(self) -> DictConfig:
        """The configuration with this point's values, a copy."""
        with self.composition.laid_over(self.values):
            return copy.deepcopy(self.composition.config)


def _related(a: str, b: str) -> bool:
    """Whether one key is the other or lies below it; everything lies below the empty key."""
    return a == b or not a or not b or a.startswith(f"{b}.") or b.startswith(f"{a}.")
