"""Fixtures: the synthetic study, written once, and what Compare makes of it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stages.runtime import Runtime
from sweeps.compare import Compare


def load_synthetic() -> ModuleType:
    """`synthetic.py` beside this file; pytest's importlib mode puts no test folder on the path."""
    spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).with_name("synthetic.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault("synthetic", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return load_synthetic()


@pytest.fixture(scope="session")
def study(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The payload of Compare over the synthetic study."""
    root = tmp_path_factory.mktemp("study")
    points = synthetic.write_study(root / "scores")
    out = root / "out"
    out.mkdir()
    Compare(points=points, slack=1.0, runtime=Runtime(lineage=synthetic.lineage())).run(out)
    return out
