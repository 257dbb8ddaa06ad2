"""`hydra/launcher=graph`: runs all points of a sweep as one graph, so that stages that they share run once.

tilt run -m method=vas method.beta=1,2,4
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from pipeline.errors import UsageError
from pipeline.points import Composition, Point


@dataclass
class GraphLauncherConf:
    _target_: str = "hydra_plugins.tilt.launcher.GraphLauncher"


def register_launcher() -> None:
    """Makes `hydra/launcher=graph` known to Hydra."""
    ConfigStore.instance().store(group="hydra/launcher", name="graph", node=GraphLauncherConf, provider="tilt")


class GraphLauncher(Launcher):
    """Composes every point, then calls the task function's `many(points, folder)` once with all of them.

    What `many` returns for a point is what the sweeper is told, so that one that learns (Optuna's) can choose its next
    points. A point that failed is a failed job to it.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config
        self._compositions: dict[tuple[str, ...], Composition] = {}

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
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        compositions = self._compositions
        parsed: dict[str, tuple[str, Any] | None] = {}
        for overrides in job_overrides:
            for override in overrides:
                if override not in parsed:
                    parsed[override] = only_sets(parser.parse_override(override))
            groups = tuple(override for override in overrides if parsed[override] is None)
            if groups not in compositions:
                config = loader.load_sweep_config(self.config, list(groups))
                with open_dict(config):
                    del config["hydra"]
                compositions[groups] = Composition(config)
            values = tuple(pair for override in overrides if (pair := parsed[override]) is not None)
            points.append(Point("", compositions[groups], values, _written(overrides)))
            returns.append(JobReturn(overrides=overrides, cfg=compositions[groups].config, task_name="tilt"))
        for point, label in zip(points, labels([point.overrides for point in points]), strict=True):
            point.label = label
        HydraConfig.instance().set_config(self.config)
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        for one, value in zip(returns, many(points, folder), strict=True):
            one.status = JobStatus.FAILED if isinstance(value, Exception) else JobStatus.COMPLETED
            one.return_value = value
        return returns


def only_sets(override: Override) -> tuple[str, Any] | None:
    """(key, value) of an override that does no more than set a value; None where it may change what is composed."""
    key, value = override.get_key_element(), override.value()
    plain = override.package is None and not (override.is_add() or override.is_delete() or override.is_force_add())
    if plain and "." in key and "/" not in key and not isinstance(value, dict | list):
        return key, str(value) if isinstance(value, QuotedString) else value
    return None


def _written(overrides: Sequence[str]) -> dict[str, str]:
    """{key: text} of a point's overrides, without the one that names the sweep's file."""
    pairs = (override.lstrip("+~").partition("=") for override in filter_overrides(overrides))
    return {key: value for key, _, value in pairs if key != "sweep"}


def labels(points: Sequence[Mapping[str, str]]) -> list[str]:
    """A name for each point, such as `vas beta=4`, from the overrides that not all points have.

    Of a key only the last part is written. Where two points would then have one name (`value.seed=1` and `dpo.seed=1`
    are both `seed=1`), all their keys are written in full.
    """
    shared = set.intersection(*(set(point.items()) for point in points)) if len(points) > 1 else set()
    apart = [{key: value for key, value in point.items() if (key, value) not in shared} for point in points]
    short = [_label(overrides, whole=False) for overrides in apart]
    times = Counter(short)
    return [
        label if times[label] == 1 else _label(overrides, whole=True)
        for label, overrides in zip(short, apart, strict=True)
    ]


def _label(overrides: Mapping[str, str], *, whole: bool) -> str:
    return " ".join(
        value if key == "method" else f"{key if whole else key.rpartition('.')[2]}={value}"
        for key, value in overrides.items()
    )
