"""What the runner adds to OmegaConf: references between stages, checks of values, names of keys."""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from conf.schemas.whole import WHOLE
from pipeline.errors import UsageError

STAGE = "stage://"
FILE = "file://"
WHERE = " where "
"""Stands between the name of a stage and the two names of its condition."""
SLOT = "slot"
"""Key of a stage that is configured elsewhere: `stages.sft: {slot: "${policy.train}"}`. What stands beside it is laid
over what fills the slot; a slot that is null is no stage."""


def register_resolvers() -> None:
    """`${stage:NAME}` refers to another stage, `${file:PATH}` to a local file or folder that counts by its content.

    `${stage_where:NAME,USER,NEEDED}`, below `compare`, refers to stage NAME in the points whose stage USER needs stage
    NEEDED, directly or through others; in all other points it is null.
    """
    OmegaConf.register_new_resolver("stage", lambda name: f"{STAGE}{name}", replace=True)
    OmegaConf.register_new_resolver(
        "stage_where", lambda name, user, needed: f"{STAGE}{name}{WHERE}{user} {needed}", replace=True
    )
    OmegaConf.register_new_resolver(
        "file", lambda path: f"{FILE}{Path(str(path)).expanduser().absolute()}", replace=True
    )


def resolved(config: DictConfig, path: str) -> Any:
    """The plain, fully resolved value at `path`. Raises UsageError where it cannot be resolved or `???` is left."""
    try:
        node = OmegaConf.select(config, path, throw_on_missing=True)
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        if missing := re.search(r"Missing mandatory value: (\S+)", str(error)):
            raise UsageError(f"{missing.group(1)}: has no value yet; give one with {missing.group(1)}=…") from error
        raise UsageError(f"{config_key(config, error.full_key or path)}: {_first_line(error)}") from error


def config_key(config: DictConfig, path: str) -> str:
    """The key a user would set to change the value at `path`: interpolations are followed to where they point.

    `stages.decode.guide.k` is `method.k` where `stages.decode.guide` is `${method.guide}` and its `k` is `${method.k}`.
    """
    found: list[str] = []
    for part in path.split("."):
        here = _raw(config, found) if found[:-1] == ["stages"] else None
        if isinstance(here, dict) and SLOT in here and part not in here:
            found = _followed(config, [*found, SLOT])
        found = _followed(config, [*found, part])
    return ".".join(found)


def _followed(config: DictConfig, path: list[str]) -> list[str]:
    for _ in range(10):
        raw = _raw(config, path)
        names = re.findall(r"\$\{(\.*[A-Za-z_][\w.@]*)\}", raw) if isinstance(raw, str) else []
        if not names:
            break
        up = len(names[-1]) - len(names[-1].lstrip("."))  # dots count from the mapping that holds the text
        path = path[: len(path) - up] * bool(up) + names[-1].lstrip(".").split(".")
    return path


def _raw(config: Any, path: list[str]) -> Any:
    node = config
    for part in path:
        if isinstance(node, DictConfig) and not node._is_none() and part in node._content:  # type: ignore[operator]
            node = node._get_node(part)
        else:
            return None
    return node._value() if node is not None else None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def nearest(word: str, choices: list[str]) -> str:
    """`; did you mean 'beta'?` for the closest choice, or an empty string."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def check(config: DictConfig, only: str = "") -> None:
    """Holds values under schemas against the schemas' bounds: all, or those on the way to and below the key `only`.

    A schema's field carries its bounds as metadata (`conf.schemas.bounds`), or `needs`: the field beside it that it is
    useless without, and what to say then. Raises UsageError naming the first that fails.
    """
    for path, kind, node in [*_whole(config, only), *_schemas(config, "", only)]:
        for f in dataclasses.fields(kind):
            needs = f.metadata.get("needs")
            if needs and node[f.name] is not None and node[needs[0]] is None:
                raise UsageError(f"{path}: {needs[1]}")
            rule = f.metadata.get("rule")
            if rule and f.name in node and node[f.name] is not None:
                value = node[f.name]
                for one in value if isinstance(value, ListConfig) else [value]:
                    if not _holds(rule, one):
                        raise UsageError(f"{path}.{f.name}: {one} is not {rule['what']}".lstrip("."))


def _whole(config: DictConfig, only: str) -> Iterator[tuple[str, Any, DictConfig]]:
    """What `conf.schemas.whole` has schemas of, its types checked."""
    for path, kind in WHOLE.items():
        node = config.get(path) if path else config
        if not isinstance(node, DictConfig) or (only and only.partition(".")[0] != path):
            continue
        typed = OmegaConf.structured(kind)
        if "_target_" in typed and node.get("_target_") != typed["_target_"]:
            continue
        for f in dataclasses.fields(kind):
            if f.metadata and f.name in node:
                try:
                    typed[f.name] = node[f.name]
                except ValidationError as error:
                    given = "null" if node[f.name] is None else node[f.name]
                    what = f.metadata["rule"]["what"]
                    raise UsageError(f"{path}.{f.name}: {given} is not {what}".lstrip(".")) from error
        yield path, kind, node


def _schemas(node: Any, path: str, only: str) -> Iterator[tuple[str, Any, DictConfig]]:
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    kind = OmegaConf.get_type(node)
    if dataclasses.is_dataclass(kind):
        yield path, kind, node
    for key in node:
        child = node._get_node(key)
        below = f"{path}.{key}" if path else str(key)
        if isinstance(child, DictConfig) and (not only or below.startswith(only) or only.startswith(f"{below}.")):
            yield from _schemas(child, below, only)


def _holds(rule: dict[str, Any], value: Any) -> bool:
    if rule["choices"]:
        return value in rule["choices"]
    if rule["text"]:
        value = len(str(value)) if isinstance(value, str | int | float) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    bounds = ((rule["least"], value.__ge__), (rule["most"], value.__le__), (rule["above"], value.__gt__))
    return all(bound is None or holds(bound) for bound, holds in bounds)
