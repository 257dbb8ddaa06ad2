"""Checks that the fields of a dataclass hold what they declare. Judges may be configured without a schema."""

import math
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from stages.errors import BadInput


def check_types(holder: Any, above: str = "") -> None:
    """Raises BadInput for the first field of `holder` that holds something else than it declares. `above` stands before
    the field's name.

    Numbers have to be finite, whole numbers to fit into 64 bits, text to be writable as UTF-8. True and false are no
    numbers.
    """
    for name, kind in typing.get_type_hints(type(holder)).items():
        if problem := _problem(getattr(holder, name), kind):
            raise BadInput(above + name, problem)


def _problem(value: Any, kind: Any) -> str:
    """What is wrong with a value; empty where nothing is."""
    if isinstance(kind, types.UnionType):
        kinds = [one for one in typing.get_args(kind) if one is not types.NoneType]
        if value is None and len(kinds) < len(typing.get_args(kind)):
            return ""
        kind = kinds[0]
    base = typing.get_origin(kind) or kind
    if base is Any or _holds(value, base):
        return ""
    shown = "null" if value is None else repr(value)
    return f"{shown if len(shown) <= 60 else shown[:57] + '…'} is not {_CALLED.get(base, f'a {base.__name__}')}"


_CALLED = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list of texts",
    dict: "a mapping with texts as keys", Path: "the path of a folder",
}  # fmt: skip


def _holds(value: Any, base: Any) -> bool:
    if base is str:
        return isinstance(value, str) and _writable(value)
    if base is bool:
        return isinstance(value, bool)
    if base is int:
        return isinstance(value, Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63
    if base is float:
        return isinstance(value, Real) and not isinstance(value, bool) and _finite(value)
    if base is list:
        return isinstance(value, list | tuple) and all(_holds(one, str) for one in value)
    if base is dict:
        return isinstance(value, Mapping) and all(_holds(key, str) for key in value)
    if base is Path:
        return isinstance(value, str | Path)
    return isinstance(value, base)


def _finite(value: Real) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
