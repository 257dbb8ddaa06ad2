"""The worked examples in the docstrings of this room."""

import doctest
import importlib
import pkgutil

import pytest

import stages.learn

MODULES = sorted(m.name for m in pkgutil.walk_packages(stages.learn.__path__, "stages.learn.") if not m.ispkg)


@pytest.mark.parametrize("name", MODULES)
def test_worked_examples_hold(name: str):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
