"""Graphs of the toy project's stages, made and run in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from pipeline.attempt import Attempts
from pipeline.config import register_resolvers
from pipeline.execute import Execution, Outcome
from pipeline.executors import InProcess
from pipeline.graph import Graph
from pipeline.points import Point
from pipeline.store import Store
from pipeline.tracking import Tracking

SAY = "toy_stages.Say"


class Silent:
    """A view that only remembers the names of what it was told: `[("done", "first"), …]`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda node, *more: self.told.append((name, node.name))


class Small:
    """Two stages in a chain and one apart; `graph(**changes)` plans them, `run(graph)` runs them in this process."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")
        self.view: Any = Silent()

    def config(self, **changes: Any) -> DictConfig:
        stages = {
            "first": {"_target_": SAY, "word": "well"},
            "second": {"_target_": SAY, "word": "${word}", "heard": "${stage:first}"},
            "apart": {"_target_": SAY, "word": "alone"},
        }
        config = OmegaConf.create({"goal": ["second", "apart"], "word": "hi", "stages": stages})
        merged = OmegaConf.merge(config, changes)
        assert isinstance(merged, DictConfig)
        return merged

    def graph(self, **changes: Any) -> Graph:
        return Graph([Point.of(self.config(**changes), "one")])

    def run(self, graph: Graph, retries: int = 0) -> Outcome:
        executor = InProcess(cores=2, memory=8.0)
        return Execution(graph, self.store, executor, self.view, Tracking(), retries).run()

    def attempts(self, graph: Graph) -> Attempts:
        return Attempts(graph, self.store, Tracking(project="toy"))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    register_resolvers()
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "toy"))
    return Small(tmp_path)
