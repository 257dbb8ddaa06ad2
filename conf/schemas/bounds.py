"""The bounds of one configuration key: how a schema says what a value must be.

Schemas give each key its type and its bounds. They hold no default values: those stand in the YAML files, once. So a
field's default is `MISSING`; or it says that nothing is there (None, an empty text, list or mapping), where a file may
leave the key out; or it refers to the key that the value is taken from (`${value.target}`).
"""

import dataclasses
from typing import Any

from omegaconf import MISSING


def bounded(
    what: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    text: bool = False,
) -> Any:
    """A field whose value must be `what`, the words that an error names it by.

    A number must be finite, `least` or more, `most` or less, greater than `above`. With `choices`, the value must be
    one of them. With `text`, the bounds hold for the number of characters.
    """
    rule = {"what": what, "least": least, "most": most, "above": above, "choices": choices, "text": text}
    return dataclasses.field(default=MISSING, metadata={"rule": rule})
