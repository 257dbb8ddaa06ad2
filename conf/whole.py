"""Schemas of what stands in config.yaml itself: checked where a key is given, never laid under it.

So a key that is not written there has no default here, and what a stage is handed, and its key, stay what they are.
"""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from conf.schema import bounded


@dataclass
class Run:
    """Keys at the top that are no group."""

    name: str = bounded(MISSING, "a name", text=True, least=1)
    store: str = bounded(MISSING, "a folder", text=True, least=1)
    runs: str = bounded(MISSING, "a folder", text=True, least=1)
    objective: Any = bounded(MISSING, "a stage's metric (stage.metric) or a list of them", text=True, least=1)  # noqa: RUF009
    max_cost: float | None = bounded(MISSING, "an amount of dollars, 0 or more", least=0)


@dataclass
class Evaluation:
    """Which prompts each point answers, and how often."""

    parts: list[str] = bounded(MISSING, "a list of parts", text=True, least=1)  # noqa: RUF009
    samples: int = bounded(MISSING, "a positive number of responses", least=1)
    seed: int = bounded(MISSING, "a whole number, 0 or more", least=0)
    rows: int = bounded(MISSING, "a positive number of sequences", least=1)


@dataclass
class Compare:
    """The comparison of all points; one of another class is left to that class."""

    _target_: str = "sweeps.compare.Compare"
    select_part: str = bounded(MISSING, "a part, or empty (none is chosen)", text=True, least=0)
    report_part: str = bounded(MISSING, "a part", text=True, least=1)
    slack: float = bounded(MISSING, "a number of standard errors, 0 or more", least=0)
    reference: str = bounded(MISSING, "a method", text=True, least=1)
    draws: int = bounded(MISSING, "a number of draws, 1,000 or more", least=1000)
    seed: int = bounded(MISSING, "a whole number, 0 or more", least=0)
    shown: int = bounded(MISSING, "a number of prompts, 0 or more", least=0)


WHOLE: dict[str, type] = {"": Run, "evaluation": Evaluation, "compare": Compare}
"""By the key that they stand at."""
