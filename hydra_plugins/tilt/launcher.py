"""`hydra/launcher=graph`: hands all points of a sweep over at once, so that shared stages run once.

tilt run -m method=vas method.beta=1,2,4
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from pipeline.errors import UsageError
from pipeline.graph import Point


@dataclass
class GraphLauncherConf:
    _target_: str = "hydra_plugins.tilt.launcher.GraphLauncher"


def register_launcher() -> None:
    """Makes `hydra/launcher=graph` known to Hydra."""
    ConfigStore.instance().store(group="hydra/launcher", name="graph", node=GraphLauncherConf, provider="tilt")


class GraphLauncher(Launcher):
    """Composes every point, then calls the task function's `many(points, folder)` once with all of them."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One JobReturn a point. Raises UsageError where the task function knows no graphs."""
        many: Any = getattr(self.task_function, "many", None)
        if many is None:
            raise UsageError(
                "hydra/launcher: 'graph' runs `tilt` only; set hydra/launcher=basic for other applications"
            )
        setup_globals()
        returns: list[JobReturn] = []
        points: list[Point] = []
        shared = set.intersection(*(set(overrides) for overrides in job_overrides)) if len(job_overrides) > 1 else set()
        for index, overrides in enumerate(job_overrides):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = initial_job_idx + index
            own = copy.deepcopy(config)
            with open_dict(own):
                del own["hydra"]
            points.append(Point(_label([o for o in filter_overrides(overrides) if o not in shared]), own))
            returns.append(JobReturn(overrides=overrides, cfg=own, hydra_cfg=config, task_name=config.hydra.job.name))
        HydraConfig.instance().set_config(self.config)
        code = many(points, Path(str(self.config.hydra.sweep.dir)).absolute())
        for one in returns:
            one.status, one.return_value = JobStatus.COMPLETED, code
        return returns


def _label(overrides: Sequence[str]) -> str:
    """`vas beta=4`: a point by what it overrides, without the groups that its keys are in."""
    words = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key == "sweep":
            continue
        words.append(value if key == "method" else f"{key.rpartition('.')[2]}={value}")
    return " ".join(words)
