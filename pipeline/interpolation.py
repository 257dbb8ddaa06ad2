"""Where interpolations (`${a.b}`, `${..b}`) point: the key that sets a value, and the keys that a value depends on."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

SLOT = "slot"
"""Key of a stage that is configured elsewhere: `stages.sft: {slot: "${policy.train}"}`. What stands beside it is laid
over what fills the slot; a slot that is null is no stage."""
_PLAIN = re.compile(r"\$\{(\.*[A-Za-z_][\w.@]*)\}")
_ANY = re.compile(r"\$\{(?:oc\.[\w.]+:)?([^{}:$,]*)(?=[}$,])")
"""The key in `${a.b}` and `${oc.select:a.b}`. Of `${a.${b}}`, which may become any key below `a`, the part `a.`."""
_MOST_STEPS = 10


def config_key(config: DictConfig, path: str) -> str:
    """The key a user would set to change the value at `path`: interpolations are followed to where they point.

    `stages.decode.guide.k` is `method.k` where `stages.decode.guide` is `${method.guide}` and its `k` is `${method.k}`.
    """
    found: list[str] = []
    parts = path.split(".")
    for depth, part in enumerate(parts):
        _, here = written(config, found) if found[:-1] == ["stages"] else (found, None)
        if isinstance(here, dict) and SLOT in here and not _says(here, parts[depth:]):
            found = _followed(config, [*found, SLOT])
        found = _followed(config, [*found, part])
    return ".".join(found)


def _says(value: Any, path: Sequence[str]) -> bool:
    """Whether a mapping has something at a key, or a value that leaves no room for the key."""
    for part in path:
        if isinstance(value, dict):
            if part not in value:
                return False
            value = value[part]
    return True


def _followed(config: DictConfig, path: list[str]) -> list[str]:
    for _ in range(_MOST_STEPS):
        where, text = written(config, path)
        names = _PLAIN.findall(text) if isinstance(text, str) else []
        if not names:
            break
        path = absolute(names[-1], where) + path[len(where) :]
    return path


def depends_on(config: DictConfig, path: str) -> frozenset[str]:
    """The keys whose values can change the value at `path`, itself included. An empty key stands for all keys."""
    found: set[str] = set()
    todo = [path]
    while todo:
        if (key := todo.pop()) in found:
            continue
        found.add(key)
        where, value = written(config, key.split("."))
        for place, text in _texts(value, where):
            todo += [".".join(absolute(name, place)) for name in _ANY.findall(text)]
    return frozenset(found)


def absolute(name: str, place: Sequence[str]) -> list[str]:
    """The parts of the key that `name` means in a text at `place`. Leading dots count from the mapping around it.

    >>> absolute("..seed", ["method", "guide", "k"]), absolute("a.b", ["x"])
    (['method', 'seed'], ['a', 'b'])
    """
    up = len(name) - len(name.lstrip("."))
    return [*(place[: max(0, len(place) - up)] if up else ()), *filter(None, name[up:].split("."))]


def written(config: DictConfig, path: Sequence[str]) -> tuple[list[str], Any]:
    """What is written at a key, before interpolation, as plain values, and the key where it stands.

    An interpolation on the way hides all keys below it: then it is the interpolation, and its own, shorter key. None
    where nothing is written.
    """
    node: Any = config
    for depth, part in enumerate(path):
        content = node._value()
        if isinstance(content, dict) and part in content:
            node = content[part]
        elif isinstance(content, list) and part.isdigit() and int(part) < len(content):
            node = content[int(part)]
        elif node._is_interpolation():
            return list(path[:depth]), content
        else:
            return list(path), None
    return list(path), OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node._value()


def _texts(value: Any, place: list[str]) -> Iterator[tuple[list[str], str]]:
    """Every text in a plain value, with its key."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(part, [*place, str(key)])
