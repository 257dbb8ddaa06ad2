"""A stage's key: sha256 over the canonical JSON of everything that can change its result.

The key is known before anything runs, so that a whole sweep can be planned and explained.
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SCHEMA = 2
OUTSIDE_THE_KEY = ("runtime", "resources", "device")
"""Fields, at any depth, that cannot change a result: devices, rows a batch, cores."""
FOR_THE_RUNNER = ("resources", "code", "version")
"""Keys of a stage's configuration that are no fields of its class."""


def canonical(value: Any) -> Any:
    """A form that is the same for equal values: 1.0 becomes 1, text becomes NFC, mappings are sorted.

    >>> canonical({"b": 2.0, "a": (1, "x")})
    {'a': [1, 'x'], 'b': 2}

    Raises ValueError for nan and infinities, TypeError for anything that JSON has no form for.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no canonical form")
        return int(value) if value.is_integer() else value
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, Mapping):
        return {canonical(str(k)): canonical(v) for k, v in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, Sequence):
        return [canonical(v) for v in value]
    raise TypeError(f"{type(value).__name__} has no canonical form")


def digest(value: Any) -> str:
    """sha256 (hex) of a value's canonical JSON."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's content, or of the names and contents of all files below a folder."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return digest({str(p.relative_to(path)): file_digest(p) for p in files})


Files = Mapping[str, Sequence[str]]
"""{path: (stamp, digest)} of local files and folders as a key saw them."""


def file_stamp(path: Path) -> str:
    """A text that changes with every write to a file, or below a folder. Only sizes and times are looked at."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return digest({str(p.relative_to(path)): [(seen := p.stat()).st_size, seen.st_mtime_ns] for p in files})


def changed_files(seen: Files) -> list[str]:
    """Paths whose content has changed since the key was made. A file is only read where its stamp differs."""
    found = []
    for name, (stamp, content) in seen.items():
        path = Path(name)
        with suppress(OSError):
            if path.exists() and (file_stamp(path) == stamp or file_digest(path) == content):
                continue
        found.append(name)
    return found


@cache
def library_versions() -> dict[str, str]:
    """major.minor of the libraries whose arithmetic a result depends on."""
    found = {}
    for name in ("torch", "transformers"):
        try:
            found[name] = ".".join(version(name).split("+")[0].split(".")[:2])
        except PackageNotFoundError:
            continue
    return found


def counting(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a stage's configuration that enters its key."""
    return _counting({name: value for name, value in config.items() if name not in FOR_THE_RUNNER})


def _counting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _counting(v) for k, v in value.items() if k not in OUTSIDE_THE_KEY}
    return [_counting(v) for v in value] if isinstance(value, list) else value


def preimage(target: str, config: Mapping[str, Any], code: str, inputs: Sequence[str]) -> dict[str, Any]:
    """What a key is the hash of: {schema, stage, version, code, libraries, config, inputs}.

    `config` is the stage's full configuration in which references stand as the keys of what they refer to and files
    as the hash of their content; `inputs` are these upstream keys. Of the words for the runner, `resources` and
    `code` do not count and `version` does.
    """
    return {
        "schema": SCHEMA,
        "stage": target,
        "version": config.get("version", 0),
        "code": code,
        "libraries": library_versions(),
        "config": counting(config),
        "inputs": sorted(set(inputs)),
    }
