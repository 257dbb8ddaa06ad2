"""Composing configurations of conf/ as `tilt` does, in a folder that holds a model and a table of prompts."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from conf.schemas.register import register_schemas
from hydra_plugins.tilt.launcher import register_launcher
from hydra_plugins.tilt.sweeper import expand, read_blocks, register_sweeper
from pipeline.config import register_resolvers
from pipeline.points import Composition, Point


@pytest.fixture(autouse=True)
def composing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within a test `compose("config", overrides)` gives a configuration."""
    register_resolvers()
    register_schemas()
    register_launcher()
    register_sweeper()
    (tmp_path / "model").mkdir()
    (tmp_path / "prompts.csv").write_text("prompt\nwhy\n")
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    with initialize_config_module(config_module="conf", version_base="1.3"):
        yield


@pytest.fixture
def needed() -> dict[str, list[str]]:
    """What a file leaves to its user: choice of a group → overrides."""
    return {
        "task=csv": ["task.file=prompts.csv"],
        "judge=compatible": ["judge.base_url=http://127.0.0.1:8000/v1", "judge.model=x"],
        "model=local": ["model.path=model"],
        "model=hub": ["model.repo=owner/name", "model.revision=0123abc"],
    }


@pytest.fixture
def points_of() -> Callable[..., list[Point]]:
    """`points_of(sweep, *overrides)`: the points of a sweep."""
    return _points_of


def _points_of(sweep: str, *more: str) -> list[Point]:
    """The points of a sweep; as the launcher does it, each choice of groups is composed once and values laid over."""
    parser, compositions, points = OverridesParser.create(), dict[tuple[str, ...], Composition](), []
    for overrides in expand(read_blocks(sweep), {}):
        groups = tuple(o for o in (*overrides, *more) if "." not in o.partition("=")[0])
        values = tuple(parser.parse_override(o) for o in (*overrides, *more) if o not in groups)
        if groups not in compositions:
            compositions[groups] = Composition(compose("config", list(groups)))
        given = tuple((o.get_key_element(), o.value()) for o in values)
        points.append(Point(" ".join(overrides), compositions[groups], given))
    return points
