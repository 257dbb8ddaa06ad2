"""The function that Hydra calls, with one point or with a batch of them."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from pipeline.errors import PointFailed, UsageError
from pipeline.points import Point
from pipeline.verbs import RUN_VERBS, Request
from tilt.command_line import CommandLine
from tilt.task import Task

LINE = CommandLine([], ["first"], frozenset({"--json"}), {"--keep-runs": "3d"})


class Verb:
    """Remembers what it was asked; answers `code`, and that each point is worth its place."""

    def __init__(self, code: int = 0, worth: Any = None) -> None:
        self.code, self.worth, self.requests = code, worth, list[Request]()

    def __call__(self, request: Request) -> int:
        self.requests.append(request)
        request.returned = [self.worth or number for number, _ in enumerate(request.points)]
        return self.code


@pytest.fixture
def hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Hydra says of the call at hand."""
    told = SimpleNamespace(
        mode=RunMode.RUN, runtime=SimpleNamespace(output_dir=str(tmp_path)), sweeper={"_target_": "x.BlockSweeper"}
    )
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: told))
    return told


def point(**config: Any) -> Point:
    return Point.of(OmegaConf.create(config))


@pytest.mark.usefixtures("hydra")
def test_one_point_is_a_request_of_one(tmp_path: Path) -> None:
    verb = Verb(code=1, worth=0.5)
    whole = {"": dict}
    task = Task(verb, LINE, whole)
    assert task(OmegaConf.create({"a": 1})) == 0.5
    (request,) = verb.requests
    assert (request.words, request.flags, request.ages) == (["first"], {"--json"}, {"--keep-runs": "3d"})
    assert (request.folder, request.whole) == (tmp_path, whole)
    assert task.exit_code() == 1


@pytest.mark.usefixtures("hydra")
def test_a_sweep_without_m_is_refused_when_hydra_is_done() -> None:
    task = Task(Verb(), LINE, {})
    assert task(OmegaConf.create({"sweep": "demo"})) is None
    with pytest.raises(UsageError, match=r"^sweep: demo is a sweep, and this is one point; add -m$"):
        task.exit_code()


@pytest.mark.usefixtures("hydra")
def test_in_another_process_a_failure_is_raised() -> None:
    task = Task(Verb(code=1, worth=PointFailed("it broke")), LINE, {})
    assert isinstance(task(OmegaConf.create({})), PointFailed)  # here Hydra goes on with the next point
    task._process = -1
    with pytest.raises(PointFailed):
        task(OmegaConf.create({}))
    with pytest.raises(UsageError):
        task(OmegaConf.create({"sweep": "demo"}))


@pytest.mark.usefixtures("hydra")
def test_batches_add_up(tmp_path: Path) -> None:
    verb = Verb()
    task = Task(verb, LINE, {})
    assert task.many([point(), point()], tmp_path) == [0, 1]
    assert task.many([point()], tmp_path) == [2]  # the third of all points so far
    assert [len(request.points) for request in verb.requests] == [2, 3]


def test_a_sweeper_that_learns_needs_a_verb_that_runs_and_something_to_learn_from(hydra, tmp_path: Path) -> None:
    hydra.sweeper = {"_target_": "x.OptunaSweeper"}
    with pytest.raises(UsageError, match=r"^hydra/sweeper: OptunaSweeper chooses its points while it runs"):
        Task(Verb(), LINE, {}).many([point(objective="a.b")], tmp_path)
    with pytest.raises(UsageError, match=r"^objective: OptunaSweeper learns from what points are worth"):
        Task(RUN_VERBS["run"], LINE, {}).many([point(objective=None)], tmp_path)


def test_the_worst_of_all_calls_is_the_exit_code_and_a_task_can_be_sent_to_a_job() -> None:
    task = Task(RUN_VERBS["run"], LINE, {"": dict})
    assert task.exit_code() == 0
    task.codes = [0, 2, 1]
    assert task.exit_code() == 2
    back = pickle.loads(pickle.dumps(task))
    assert (back.verb, back.line, back.whole) == (RUN_VERBS["run"], LINE, {"": dict})
