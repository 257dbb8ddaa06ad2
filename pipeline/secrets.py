"""Finds the environment's keys and tokens in a text, so that none of them is ever written to disk."""

import os
import re
from collections.abc import Mapping

_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
_SHORTEST = 8


def secrets() -> dict[str, str]:
    """{name: value} of the environment's variables whose name says that they are secret."""
    found = ((name, value) for name, value in os.environ.items() if _NAME.search(name.upper()))
    return {name: value for name, value in found if len(value) >= _SHORTEST}


def secret_in(text: str, known: Mapping[str, str]) -> str | None:
    """The name of a variable whose secret value stands in a text."""
    return next((name for name, value in known.items() if value in text), None)
