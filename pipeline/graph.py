"""From composed configurations to one graph of unique stages.

A stage's fields may refer to other stages (`${stage:rollouts}`). The graph holds what the goals of all points reach,
each key once. Last comes the stage that `compare` describes. Its `points` entry is resolved in every point, and the
stage is given the list of the results; what else it refers to is taken from the first point.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pipeline.code import code_of, targets
from pipeline.comparison import extra_labels
from pipeline.config import FILE, STAGE, WHERE, nearest
from pipeline.errors import UsageError
from pipeline.interpolation import SLOT, config_key
from pipeline.keys import Files, counting, digest, file_digest, file_stamp, preimage
from pipeline.points import Point
from pipeline.resources import Resources
from pipeline.secrets import secret_in, secrets

COMPARE = "compare"
CODE = ("track", "pin", "ignore")
"""How a stage's code enters its key. `track`: as the source is now. `pin`: as it was for the newest result of the same
configuration and inputs. `ignore`: not at all."""

Code = Mapping[str, Mapping[str, str]]
Pinned = Callable[[dict[str, Any]], str | None]
"""Given what a key is made of: the code part of the newest result that is equal in all other parts, else None."""


@dataclass
class Node:
    """One unique stage execution."""

    key: str
    name: str
    target: str
    config: dict[str, Any]
    """Resolved fields; a reference is written `stage://<key>`, a local file `file://<path>`."""
    inputs: dict[str, str]
    """{name: key} of the stages upstream."""
    preimage: dict[str, Any]
    code: Code
    files: Files
    """The local files among its fields, as they were when its key was made."""
    points: list[Point]
    """The points that have it in common."""
    resources: Resources = field(default_factory=Resources)
    tracked: bool = True
    """Whether its key was made of the source as it is now."""
    parts: list[str] = field(default_factory=list)
    """Keys of the shards that it is merged from, in order."""
    shard: tuple[int, int] | None = None
    """(index, count) where this is a shard; `whole` is then what it is a part of."""
    whole: str = ""

    @property
    def needs(self) -> list[str]:
        """Keys that must be published before it can run."""
        return [*self.inputs.values(), *self.parts]

    def config_key(self, path: str) -> str:
        """The configuration key behind a field of this stage, as the user would write it."""
        where = COMPARE if self.name == COMPARE else f"stages.{self.name}"
        return config_key(self.points[0].config, f"{where}.{path}")


class Graph:
    """Unique stages in an order in which every stage comes after its inputs."""

    def __init__(self, points: Iterable[Point], pinned: Pinned | None = None) -> None:
        """Raises UsageError for references to nothing, cycles, missing values and files, unknown targets."""
        self.points = list(points)
        self.pinned = pinned
        self.nodes: dict[str, Node] = {}
        self.goals: list[str] = []
        self._files: dict[str, tuple[str, str]] = {}
        self._configs: dict[Hashable, dict[str, Any] | None] = {}
        """A stage's fields by `Point.variant`."""
        self._upstream: dict[Hashable, list[str]] = {}
        """Names of the stages that these fields refer to, by the same."""
        self._known: dict[Hashable, str] = {}
        """Keys of nodes by the same and the keys of their inputs."""
        self._code: dict[Hashable, str] = {}
        """Digests of the code by the targets that reach it."""
        self._secrets = secrets()
        self.naive = 0
        for point in self.points:
            point.stages = {}
            for name in [goal for goal in _goals(point) if goal != COMPARE]:
                self._goal(self._expand(point, name, ()))
        if any(COMPARE in _goals(point) for point in self.points):
            self._goal(self._compare())
        self.naive = sum(len(point.stages) for point in self.points) + any(
            node.name == COMPARE for node in self.nodes.values()
        )
        """Stages that would run if no two points shared one."""
        self.sort()

    def sort(self) -> None:
        """Puts every node after what it needs."""
        order = TopologicalSorter({key: set(node.needs) for key, node in self.nodes.items()}).static_order()
        self.nodes = {key: self.nodes[key] for key in order}

    def _goal(self, key: str | None) -> None:
        if key and key not in self.goals:
            self.goals.append(key)

    def ancestors(self, key: str) -> list[str]:
        """Keys upstream of a node, in graph order."""
        seen: set[str] = set()
        todo = [key]
        while todo:
            for upstream in self.nodes[todo.pop()].needs:
                if upstream not in seen:
                    seen.add(upstream)
                    todo.append(upstream)
        return [k for k in self.nodes if k in seen]

    def config_of(self, point: Point, name: str) -> dict[str, Any] | None:
        """A stage's resolved fields; None where its slot is empty. Shared, not to be changed."""
        return self._config(point, name)[0]

    def _config(self, point: Point, name: str) -> tuple[dict[str, Any] | None, Hashable]:
        """The same, and what it can be known by (`Point.variant`)."""
        variant = point.variant(f"stages.{name}")
        if variant not in self._configs:
            config = point.resolve(f"stages.{name}")
            if isinstance(config, dict) and SLOT in config:
                beside = {key: value for key, value in config.items() if key != SLOT}
                config = config[SLOT]
                if beside and isinstance(config, dict):
                    config = _laid_over(config, beside)
            if config is not None and not isinstance(config, dict):
                raise UsageError(f"stages.{name}: {config} is not a stage's fields with its class as _target_")
            self._configs[variant] = config
        return self._configs[variant], variant

    def _expand(self, point: Point, name: str, path: tuple[str, ...]) -> str | None:
        if name in point.stages:
            return point.stages[name]
        if name in path:
            raise UsageError(f"stages.{name}: refers to itself ({' → '.join([*path, name])})")
        if name not in point.stage_names:
            raise UsageError(f"goal: there is no stage '{name}' in stages{nearest(name, list(point.stage_names))}")
        config, variant = self._config(point, name)
        if config is None:
            return None
        # points share resolved fields: the same fields over the same inputs are the same node
        if variant not in self._upstream:
            self._upstream[variant] = list(_marked(config, STAGE))
        keys = {upstream: self._expand(point, upstream, (*path, name)) for upstream in self._upstream[variant]}
        same = (variant, *keys.values())
        if same in self._known:
            self.nodes[self._known[same]].points.append(point)
        else:
            inputs = {upstream: key for upstream, key in keys.items() if key}
            self._known[same] = self._add(point, name, _follow(config, keys.get), inputs)
        point.stages[name] = self._known[same]
        return point.stages[name]

    def _compare(self) -> str:
        first = self.points[0]
        config = first.resolve(COMPARE)
        entries: dict[str, tuple[dict[str, Any], dict[str, Any], Point]] = {}
        """By its text: an entry with keys for references, the entry as the point says it, the point."""
        inputs: dict[str, str] = {}
        for point in self.points:

            def link(upstream: str, point: Point = point) -> str | None:
                name, key = self._compared(point, upstream)
                if key:
                    inputs[f"{name} of {point.label}"] = key
                return key

            said = point.resolve(f"{COMPARE}.points")
            entry = _follow(said, link)
            entries.setdefault(json.dumps(entry, sort_keys=True, default=str), (entry, said, point))

        def own(upstream: str) -> str | None:  # references of the comparison outside of its points
            name, key = self._compared(first, upstream)
            if key:
                inputs[name] = key
            return key

        config = _follow({name: value for name, value in config.items() if name != "points"}, own)
        beyond = extra_labels([(said, point) for _, said, point in entries.values()])
        points = [e | ({"varied": v} if v else {}) for (e, _, _), v in zip(entries.values(), beyond, strict=True)]
        key = self._add(first, COMPARE, config | {"points": points}, inputs)
        self.nodes[key].points = self.points
        return key

    def _compared(self, point: Point, reference: str) -> tuple[str, str | None]:
        """(name, key) of a stage that the comparison refers to; no key where its slot is empty or its condition fails.

        A condition (`${stage_where:NAME,USER,NEEDED}`) holds where the point's stage USER needs stage NEEDED.
        """
        name, _, condition = reference.partition(WHERE)
        if condition:
            user, _, needed = condition.partition(" ")
            key = self._expand(point, user, (COMPARE,))
            if not key or not self._needs(key, needed):
                return name, None
        return name, self._expand(point, name, (COMPARE,))

    def _needs(self, key: str, name: str) -> bool:
        """Whether the stage `name` is upstream of a node, directly or through others."""
        inputs = self.nodes[key].inputs
        return name in inputs or any(self._needs(upstream, name) for upstream in inputs.values())

    def _add(self, point: Point, name: str, config: dict[str, Any], inputs: dict[str, str]) -> str:
        where = COMPARE if name == COMPARE else f"stages.{name}"
        if not isinstance(config.get("_target_"), str):
            raise UsageError(f"{where}._target_: missing; name the stage's class")
        try:
            code = code_of(config)
        except (ModuleNotFoundError, SyntaxError) as error:
            raise UsageError(f"{config_key(point.config, f'{where}._target_')}: {error}") from error
        mode = config.get("code", "track")
        if mode not in CODE:
            raise UsageError(f"{config_key(point.config, f'{where}.code')}: {mode} is not one of {', '.join(CODE)}")
        reached = tuple(sorted(set(targets(config))))
        if reached not in self._code:
            self._code[reached] = digest(code)
        counted = _replace(config, lambda text: self._counted(text, point, where))
        try:
            part = "ignored" if mode == "ignore" else self._code[reached]
            image = preimage(config["_target_"], counted, part, list(inputs.values()))
            if mode == "pin" and self.pinned and (kept := self.pinned(image)):
                image["code"] = kept
            key = digest(image)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{where}: {error}") from error
        if key in self.nodes:
            self.nodes[key].points.append(point)
        else:
            resources = Resources.of(config, lambda path: config_key(point.config, f"{where}.{path}"))
            tracked = image["code"] == self._code[reached]
            files = {path: self._files[path] for path in _marked(counting(config), FILE)}
            self.nodes[key] = Node(
                key, name, config["_target_"], config, inputs, image, code, files, [point], resources, tracked
            )
        return key

    def _counted(self, text: str, point: Point, where: str) -> Any:
        if text.startswith(STAGE):
            return {"$stage": text.removeprefix(STAGE)}
        if text.startswith(FILE):
            path = text.removeprefix(FILE)
            if path not in self._files:
                if not Path(path).exists():
                    raise UsageError(f"{_field_of(point, where, text)}: {path} does not exist")
                self._files[path] = file_stamp(Path(path)), file_digest(Path(path))  # stamped before it is read
            return {"$file": self._files[path][1]}
        if variable := secret_in(text, self._secrets):
            raise UsageError(
                f"{_field_of(point, where, text)}: holds the value of ${variable}, which would be kept with the "
                "result; give the variable's name instead"
            )
        return text


def _goals(point: Point) -> list[str]:
    goals = point.resolve("goal")
    names = [goals] if isinstance(goals, str) else goals
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"goal: {json.dumps(goals)} is not a stage's name or a list of names, such as [compare]")
    return names


def _laid_over(config: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """A stage's fields with those of `said` laid over them; mappings are merged."""

    def one(below: Any, above: Any) -> Any:
        return _laid_over(below, above) if isinstance(below, dict) and isinstance(above, dict) else above

    return config | {name: one(config.get(name), value) for name, value in said.items()}


def _field_of(point: Point, where: str, text: str) -> str:
    """The key of the field below `where` that holds `text`."""

    def find(value: Any, path: str) -> str | None:
        if value == text:
            return path
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return next((hit for k, v in items if (hit := find(v, f"{path}.{k}"))), None)

    return config_key(point.config, find(point.resolve(where), where) or where)


def _marked(value: Any, mark: str) -> dict[str, None]:
    """Names of the stages (STAGE), or paths of the files (FILE), that a configuration refers to, in order."""
    if isinstance(value, str):
        return {value.removeprefix(mark): None} if value.startswith(mark) else {}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name: None for part in inner for name in _marked(part, mark)}


def _replace(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {k: _replace(v, change) for k, v in value.items()}
    if isinstance(value, list):
        return [_replace(v, change) for v in value]
    return change(value) if isinstance(value, str) else value


def _follow(value: Any, link: Any) -> Any:
    """References by name become references by key; a reference to an empty slot becomes None."""

    def change(text: str) -> str | None:
        if not text.startswith(STAGE):
            return text
        key = link(text.removeprefix(STAGE))
        return f"{STAGE}{key}" if key else None

    return _replace(value, change)


def with_paths(config: dict[str, Any], payload: Any) -> dict[str, Any]:
    """A node's configuration as `run` sees it: references are payload paths, files are paths."""

    def change(text: str) -> str:
        if text.startswith(STAGE):
            return str(payload(text.removeprefix(STAGE)))
        return text.removeprefix(FILE)

    return _replace(config, change)


def show(value: Any) -> str:
    """A value on one line, shortened."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
