"""Schemas of `conf/task/`: where prompts come from, and how they are split into parts."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from conf.schemas.bounds import bounded


@dataclass
class Part:
    """One part of the data."""

    size: int = bounded("a positive number of rows", least=1)
    groups: float = bounded("a share between 0 and 1", least=0, most=1)


@dataclass
class Task:
    """A table, its columns, and how prompts are made of them. `corpus` is the stage that brings the table."""

    table: str = MISSING
    corpus: Any = None
    parts: dict[str, Part] = field(default_factory=dict)
    text_column: str = ""
    prompt_column: str = ""
    reference_column: str = ""
    label_column: str = ""
    positive: str = ""
    negative: str = ""
    group_column: str = ""
    template: str = MISSING
    opening_words: list[int] = MISSING
    min_words: int = bounded("a number of words, 0 or more", least=0)
    max_words: int = bounded("a number of words, 0 or more (0: no limit)", least=0)
    any_of: list[str] = field(default_factory=list)
    chat: bool = MISSING
    seed: int = bounded("a whole number, 0 or more", least=0)


@dataclass
class FileTask(Task):
    """A task whose table is a file of the user."""

    file: str = MISSING
