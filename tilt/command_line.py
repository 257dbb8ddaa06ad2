"""Sorts what follows the verb on the command line, and puts Hydra's errors about it on one line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from omegaconf import DictConfig

from pipeline.config import nearest
from pipeline.errors import UsageError

OWN_FLAGS = ("--json", "--downstream", "--quick", "--dry-run", "--mermaid", "-w")
OWN_VALUES = ("--keep-runs", "--max-cost")
HYDRA_VALUES = ("--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd", "--cfg", "-c", "--package", "-p")
HYDRA_VALUES += ("--shell-completion", "-sc")


@dataclass
class CommandLine:
    """What follows the verb, sorted: Hydra's flags and overrides, our own flags and their values, and plain words.

    >>> line = CommandLine.parsed(["sft", "a=1", "-m", "--downstream", "b=2", "--config-name", "x"])
    >>> line.hydra, line.words, sorted(line.own)
    (['-m', '--config-name', 'x', 'a=1', 'b=2'], ['sft'], ['--downstream'])
    """

    hydra: list[str]
    """Flags first: Hydra's parser takes overrides in one run only, here they may stand in any order."""
    words: list[str]
    own: frozenset[str]
    values: dict[str, str]

    @classmethod
    def parsed(cls, arguments: Sequence[str]) -> "CommandLine":
        flags: list[str] = []
        overrides: list[str] = []
        words: list[str] = []
        own: set[str] = set()
        values: dict[str, str] = {}
        before = ""
        for argument in arguments:
            if before == "--max-cost":
                overrides.append(f"max_cost={argument}")
            elif before in OWN_VALUES:
                values[before] = argument
            elif argument in OWN_FLAGS:
                own.add(argument)
            elif (
                before in HYDRA_VALUES
                or (before in ("--info", "-i") and "=" not in argument)
                or (argument.startswith("-") and argument not in OWN_VALUES)
            ):
                flags.append(argument)
            elif "=" in argument or argument.startswith("~"):
                overrides.append(argument)
            elif argument not in OWN_VALUES:
                words.append(argument)
            before = argument
        return cls(flags + overrides, words, frozenset(own), values)


def one_line(error: BaseException) -> str:
    """Hydra's and OmegaConf's errors on one line that names the key and, where it is misspelt, the nearest one."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    text = "\n".join(str(cause) for cause in causes)
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"{Path(mark.name).name}, line {mark.line + 1}: " if mark else ""
        return f"{place}{error.problem or 'this is not YAML'}"
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, name = found.groups()
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return f"{group}: there is no '{name}'{nearest(name, options)} (available: {', '.join(options)})"
    if found := re.search(r"Key '([^']+)' (?:is not in struct|not in '\w+')", text):
        key = re.search(r"full_key: (\S+)", text)
        full = key.group(1) if key else found.group(1)
        return f"{full}: there is no such key{nearest(found.group(1), _siblings(causes, found.group(1)))}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"{found.group(1)}: there is no such key; to add it anyway, write +{found.group(1)}=…"
    if found := re.search(r"^(Value .*|Invalid value .*|Cannot convert .*)$", text, flags=re.MULTILINE):
        key = re.search(r"full_key: (\S+)", text)
        return f"{key.group(1)}: {found.group(1)}" if key else found.group(1)
    if found := re.search(r"field '([^']+)' is not Optional", text):
        return f"{found.group(1)}: null is no value for it"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _siblings(causes: Sequence[BaseException], missing: str) -> list[str]:
    for cause in causes:
        parent = getattr(cause, "parent_node", None)
        if isinstance(parent, DictConfig):
            return [str(key) for key in parent if key != missing]
    return []
