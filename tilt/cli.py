"""`tilt`: verbs over Hydra's own command line.

    tilt run  method=vas method.beta=2          one point
    tilt run -m sweep=demo                      a sweep, planned as one graph
    tilt plan -m sweep=demo                     what would run, why, and what it would cost
    tilt status -m sweep=demo                   where every stage stands (-w: keep looking)
    tilt logs sft · tilt force sft --downstream · tilt graph --mermaid · tilt explain KEY [KEY2]
    tilt verify [--quick] · tilt pin name=paper -m … · tilt gc --keep-runs 30d --dry-run
    eval "$(tilt -sc install=bash)"             completion of verbs, groups, keys and values

Bad input of any kind is one line and exit code 2; `--debug` or HYDRA_FULL_ERROR=1 shows the traceback instead.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
import yaml
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from conf.schemas.register import register_schemas
from conf.schemas.whole import WHOLE
from hydra_plugins.tilt.launcher import GraphLauncher, register_launcher
from hydra_plugins.tilt.sweeper import BlockSweeper, register_sweeper
from pipeline.config import nearest, register_resolvers
from pipeline.errors import PointFailed, UsageError
from pipeline.plan_verbs import PLAN_VERBS
from pipeline.status import STATUS_VERBS
from pipeline.store_verbs import STORE_VERBS
from pipeline.verbs import RUN_VERBS
from tilt.command_line import CommandLine, one_line
from tilt.task import Task

INTERRUPTED = 130
VERBS = RUN_VERBS | PLAN_VERBS | STATUS_VERBS | STORE_VERBS
COMPLETION = ("-sc", "--shell-completion")


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Exit codes: 0 done, 1 some stage failed, 2 bad usage or configuration, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print((__doc__ or "").split("Bad input")[0].strip())
        print("\nEvery verb takes Hydra's overrides and flags; `tilt run --help` lists the configuration.")
        return 0
    if given[0] in COMPLETION:
        return _complete(given)
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
    except PointFailed as error:  # of a point that was a job of its own
        print(f"tilt: {error}", file=sys.stderr)
        return error.exit_code
    except (UsageError, HydraException, OmegaConfBaseException, yaml.MarkedYAMLError) as error:
        if traceback:
            raise
        print(f"tilt: {one_line(error)}", file=sys.stderr)
        return 2


def _hydra(verb: str, arguments: list[str]) -> int:
    line = CommandLine.parsed(arguments)
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # a reward of one's own is a file beside one's data
    # processes that are started from here look where one works first: a folder `conf` there must not hide ours
    ours, given = str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in (ours, given) if part)
    register_resolvers()
    register_schemas()
    register_launcher()
    register_sweeper()
    for plugin in (GraphLauncher, BlockSweeper):  # Hydra's scan misses them in an editable install
        Plugins.instance().register(plugin)
    task = Task(VERBS[verb], line, WHOLE)
    sys.argv = ["tilt", *line.hydra]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us whole; how they are shown is decided in `main`
    hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(task)()
    return task.exit_code()


def _complete(arguments: list[str]) -> int:
    """Completion as Hydra's shell functions ask for it: the first word is a verb, what follows is Hydra's."""
    typed = os.environ.get("COMP_LINE", "").split(" ")
    if arguments[1:2] and arguments[1].startswith("query=") and len(typed) <= 2:
        print(" ".join(VERBS))
        return 0
    os.environ["COMP_LINE"] = " ".join([*typed[:1], *typed[2:]])
    return _hydra("plan", arguments)
