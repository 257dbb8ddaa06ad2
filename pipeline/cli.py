"""`tilt`: verbs over Hydra's own command line.

    tilt run  method=vas method.beta=2          one point
    tilt run -m sweep=demo                      a sweep, planned as one graph
    tilt plan -m sweep=demo                     what would run, and why
    tilt status -m sweep=demo                   where every stage stands (-w: keep looking)
    tilt logs sft · tilt force sft --downstream · tilt graph --mermaid · tilt explain KEY [KEY2]
    tilt verify [--quick] · tilt gc --keep-runs 30d --dry-run

Bad input of any kind is one line and exit code 2; `--debug` or HYDRA_FULL_ERROR=1 shows the traceback instead.
"""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from conf.schema import register_schemas
from hydra_plugins.tilt.launcher import GraphLauncher, register_launcher
from hydra_plugins.tilt.sweeper import BlockSweeper, register_sweeper
from pipeline.config import nearest, register_resolvers
from pipeline.errors import UsageError
from pipeline.points import Point
from pipeline.store_verbs import STORE_VERBS
from pipeline.verbs import VERBS as RUN_VERBS
from pipeline.verbs import Request

INTERRUPTED = 130
VERBS = RUN_VERBS | STORE_VERBS
OWN_FLAGS = ("--json", "--downstream", "--quick", "--dry-run", "--mermaid", "-w")
OWN_VALUES = ("--keep-runs",)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Exit codes: 0 done, 1 some stage failed, 2 bad usage or configuration, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print((__doc__ or "").split("Bad input")[0].strip())
        print("\nEvery verb takes Hydra's overrides and flags; `tilt run --help` lists the configuration.")
        return 0
    verb = given.pop(0)
    if verb not in VERBS:
        print(
            f"tilt: there is no verb '{verb}'{nearest(verb, list(VERBS))} (verbs: {', '.join(VERBS)})", file=sys.stderr
        )
        return 2
    traceback = "--debug" in given or os.environ.get("HYDRA_FULL_ERROR") == "1"
    given = [argument for argument in given if argument != "--debug"]
    try:
        return _hydra(verb, given)
    except KeyboardInterrupt:
        print("\ninterrupted: what is finished is kept; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except (UsageError, HydraException, OmegaConfBaseException) as error:
        if traceback:
            raise
        print(f"tilt: {one_line(error)}", file=sys.stderr)
        return 2


def _hydra(verb: str, arguments: list[str]) -> int:
    line = CommandLine.parsed(arguments)
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # a reward of one's own is a file beside one's data
    register_resolvers()
    register_schemas()
    register_launcher()
    register_sweeper()
    for plugin in (GraphLauncher, BlockSweeper):  # Hydra's scan misses them in an editable install
        Plugins.instance().register(plugin)
    codes: list[int] = []
    refused: list[UsageError] = []

    def point(config: DictConfig) -> int:
        try:
            return many([Point.of(config)], Path(HydraConfig.get().runtime.output_dir))
        except UsageError as error:  # raised here, Hydra would print a line of its own before ours
            refused.append(error)
            return 2

    def many(points: Sequence[Point], folder: Path) -> int:
        codes.append(VERBS[verb](Request(points, folder, Console(), line.words, line.own, line.values)))
        return codes[-1]

    point.many = many  # type: ignore[attr-defined]
    sys.argv = ["tilt", *line.hydra]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us whole; how they are shown is decided in `main`
    hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(point)()
    if refused:
        raise refused[0]
    return max(codes, default=0)


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
        takes_value = (
            "--config-name",
            "-cn",
            "--config-path",
            "-cp",
            "--config-dir",
            "-cd",
            "--cfg",
            "-c",
            "--package",
            "-p",
        )
        flags: list[str] = []
        overrides: list[str] = []
        words: list[str] = []
        own: set[str] = set()
        values: dict[str, str] = {}
        before = ""
        for argument in arguments:
            if before in OWN_VALUES:
                values[before] = argument
            elif argument in OWN_FLAGS:
                own.add(argument)
            elif before in takes_value or (argument.startswith("-") and argument not in OWN_VALUES):
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
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _siblings(causes: Sequence[BaseException], missing: str) -> list[str]:
    for cause in causes:
        parent = getattr(cause, "parent_node", None)
        if isinstance(parent, DictConfig):
            return [str(key) for key in parent if key != missing]
    return []


if __name__ == "__main__":
    sys.exit(main())
