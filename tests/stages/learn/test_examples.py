"""The worked examples in the docstrings of this room."""

import doctest
import importlib
import pkgutil

import pytest

import stages.learn

MODULES = sorted(module.name for module in pkgutil.iter_modules(stages.learn.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_worked_examples_hold(name: str):
    assert doctest.testmod(importlib.import_module(f"stages.learn.{name}")).failed == 0
