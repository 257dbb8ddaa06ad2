"""The launcher hands all points of a sweep over at once; each is named by what sets it apart."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.tilt.launcher import GraphLauncher, labels, only_sets
from pipeline.errors import PointFailed, UsageError
from pipeline.points import Point


def test_a_point_is_named_by_what_not_all_points_have() -> None:
    points = [{"method": "vas", "method.beta": "1", "seed": "0"}, {"method": "vas", "method.beta": "2", "seed": "0"}]
    assert labels(points) == ["beta=1", "beta=2"]
    assert labels(points[:1]) == ["vas beta=1 seed=0"]
    assert labels([points[0], {"method": "base", "seed": "0"}]) == ["vas beta=1", "base"]


def test_two_points_of_one_name_have_their_keys_in_full() -> None:
    """`value.seed=1` and `dpo.seed=1` are not both `seed=1`."""
    seeds = [("value", "1"), ("dpo", "1"), ("dpo", "2")]
    assert labels([{"method": "vas"}, *({"method": "ivg", f"{of}.seed": seed} for of, seed in seeds)]) == [
        "vas",
        "ivg value.seed=1",
        "ivg dpo.seed=1",
        "ivg seed=2",
    ]


@pytest.mark.parametrize(
    ("override", "pair"),
    [
        ("method.beta=2", ("method.beta", 2)),
        ("voice.word='1'", ("voice.word", "1")),
        ("method.k=null", ("method.k", None)),
        ("method=vas", None),  # chooses a group
        ("method@second=vas", None),
        ("hydra/launcher=basic", None),
        ("+method.new=1", None),  # a key that is not there yet
        ("~method.beta", None),
        ("task.parts.train={size:3}", None),  # a mapping is merged when composing
    ],
)
def test_an_override_that_only_sets_a_value_is_laid_over_and_others_are_composed(override: str, pair: Any) -> None:
    assert only_sets(OverridesParser.create().parse_override(override)) == pair


class Loader:
    """Composes to what it was asked for, and counts."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def load_sweep_config(self, master: DictConfig, overrides: list[str]) -> DictConfig:
        self.asked.append(overrides)
        return OmegaConf.create({"hydra": {}, "beta": {"x": 1}, "groups": overrides})


class Many:
    """A task function that answers with the point's number, or an error for the second."""

    def __call__(self, config: DictConfig) -> None: ...

    def many(self, points: list[Point], folder: Path) -> list[Any]:
        self.points, self.folder = points, folder
        return [PointFailed("it broke") if number == 1 else number for number, _ in enumerate(points)]


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GraphLauncher:
    monkeypatch.setattr(HydraConfig, "instance", staticmethod(lambda: SimpleNamespace(set_config=lambda config: None)))
    made = GraphLauncher()
    context: Any = SimpleNamespace(config_loader=Loader())
    task: Any = Many()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    made.setup(hydra_context=context, task_function=task, config=config)
    return made


def test_each_choice_of_groups_is_composed_once_and_a_failed_point_is_a_failed_job(launcher: GraphLauncher) -> None:
    sweep = [["method=vas", "beta.x=1"], ["method=vas", "beta.x=2"], ["method=base", "beta.x=1"]]
    returns = launcher.launch(sweep, 0)
    loader: Any = launcher.hydra_context.config_loader
    assert loader.asked == [["method=vas"], ["method=base"]]
    task: Any = launcher.task_function
    assert [point.label for point in task.points] == ["vas x=1", "vas x=2", "base x=1"]
    assert [point.resolve("beta.x") for point in task.points] == [1, 2, 1]
    assert "hydra" not in task.points[0].config
    assert [one.status for one in returns] == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED]
    launcher.launch([["method=vas", "beta.x=3"]], 3)  # a later batch knows what the first composed
    assert len(loader.asked) == 2


def test_another_application_is_told_to_take_another_launcher(launcher: GraphLauncher) -> None:
    launcher.task_function = lambda config: None
    with pytest.raises(UsageError, match="set hydra/launcher=basic for other applications"):
        launcher.launch([["a=1"]], 0)
