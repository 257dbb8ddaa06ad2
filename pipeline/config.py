"""What the runner adds to OmegaConf: references to stages and files, errors that name the key, checks of bounds."""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from pipeline.errors import UsageError
from pipeline.interpolation import config_key

STAGE = "stage://"
FILE = "file://"
WHERE = " where "
"""Stands between the name of a stage and the two names of its condition."""
Schemas = Mapping[str, type]
"""Schemas (dataclasses) of what stands in the configuration itself and in no group, by the key that they stand at.

They are only looked at where a key is given. They are not laid under the configuration, so they add no default to it.
"""


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
        if missing := re.search(r"(resolving interpolation)?.*Missing mandatory value: (\S+)", str(error)):
            through, name = missing.groups()  # the whole key where an interpolation led there, else its last part
            key = config_key(config, name if through else error.full_key or name)
            raise UsageError(f"{key}: has no value yet; give one with {key}=…") from error
        raise UsageError(f"{config_key(config, error.full_key or path)}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def nearest(word: str, choices: list[str]) -> str:
    """`; did you mean 'beta'?` for the closest choice, or an empty string."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def check(config: DictConfig, whole: Schemas, only: str = "") -> None:
    """Holds the values of a configuration against its schemas' bounds, and what stands in no group against `whole`.

    `only` is a key: then no more than what is above and below it is looked at. A schema's field carries in its metadata
    `rule` ({what, least, most, above, choices, text}) or `needs` (the field beside it without which it means nothing,
    and what to say then). Raises UsageError for the first value that fails.
    """
    for path, kind, node in [*_of_whole(config, whole, only), *_of_groups(config, "", only)]:
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


def _of_whole(config: DictConfig, whole: Schemas, only: str) -> Iterator[tuple[str, Any, DictConfig]]:
    """(key, schema, values) of what `whole` has schemas of, after a check of the types."""
    for path, kind in whole.items():
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


def _of_groups(node: Any, path: str, only: str) -> Iterator[tuple[str, Any, DictConfig]]:
    """(key, schema, values) of all mappings that were composed under a schema."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    kind = OmegaConf.get_type(node)
    if dataclasses.is_dataclass(kind):
        yield path, kind, node
    for key in node:
        child = node._get_node(key)
        below = f"{path}.{key}" if path else str(key)
        if isinstance(child, DictConfig) and (not only or below.startswith(only) or only.startswith(f"{below}.")):
            yield from _of_groups(child, below, only)


def _holds(rule: dict[str, Any], value: Any) -> bool:
    if rule["choices"]:
        return value in rule["choices"]
    if rule["text"]:
        value = len(str(value)) if isinstance(value, str | int | float) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    bounds = ((rule["least"], value.__ge__), (rule["most"], value.__le__), (rule["above"], value.__gt__))
    return all(bound is None or holds(bound) for bound, holds in bounds)
