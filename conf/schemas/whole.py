"""Schemas of the keys that stand in config.yaml itself and in no group: their types and bounds.

A group's file takes its schema as a base, so that the schema's keys become the file's. These schemas are only looked at
when a value is checked. They add no key to the configuration: what a stage is handed, and so its key in the store, is
what config.yaml says.
"""

from dataclasses import dataclass
from typing import Any

from conf.schemas.bounds import bounded


@dataclass
class Run:
    """Keys at the top of config.yaml."""

    name: str = bounded("a name", text=True, least=1)
    store: str = bounded("a folder", text=True, least=1)
    runs: str = bounded("a folder", text=True, least=1)
    objective: Any = bounded("a stage's metric (stage.metric) or a list of them", text=True, least=1)  # noqa: RUF009
    max_cost: float | None = bounded("an amount of dollars, 0 or more", least=0)


@dataclass
class Evaluation:
    """Which prompts each point answers, and how often."""

    parts: list[str] = bounded("a list of parts", text=True, least=1)  # noqa: RUF009
    samples: int = bounded("a positive number of responses", least=1)
    seed: int = bounded("a whole number, 0 or more", least=0)
    rows: int = bounded("a positive number of sequences", least=1)


@dataclass
class Compare:
    """The comparison of all points. Where `_target_` names another class, that class checks its own keys."""

    _target_: str = "sweeps.compare.Compare"
    select_part: str = bounded("a part, or empty (none is chosen)", text=True, least=0)
    report_part: str = bounded("a part", text=True, least=1)
    slack: float = bounded("a number of standard errors, 0 or more", least=0)
    reference: str = bounded("a method", text=True, least=1)
    draws: int = bounded("a number of draws, 1,000 or more", least=1000)
    seed: int = bounded("a whole number, 0 or more", least=0)
    shown: int = bounded("a number of prompts, 0 or more", least=0)


WHOLE: dict[str, type] = {"": Run, "evaluation": Evaluation, "compare": Compare}
"""Schemas by the key that they belong to; the empty key is the top."""
