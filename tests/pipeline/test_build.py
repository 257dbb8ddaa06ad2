"""From a configuration to the object that runs."""

import dataclasses
from typing import Any

import pytest

from pipeline.build import NotAField, build


@dataclasses.dataclass
class Part:
    k: int = 1


@dataclasses.dataclass
class Whole:
    part: Any = None
    parts: Any = ()


class Plain:
    def __init__(self, **given: Any) -> None:
        self.given = given


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module under a name that a configuration can give."""
    import sys
    import types

    module = types.ModuleType("built_here")
    module.Part, module.Whole, module.Plain = Part, Whole, Plain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "built_here", module)


def test_what_is_inside_is_built_first_in_mappings_and_lists() -> None:
    part = {"_target_": "built_here.Part", "k": 2}
    built = build({"_target_": "built_here.Whole", "part": {"x": part, "y": 1}, "parts": [part, "text"]})
    assert built == Whole({"x": Part(2), "y": 1}, [Part(2), "text"])


def test_words_for_the_runner_are_no_fields_of_the_stage_but_of_a_part_they_are() -> None:
    assert build({"_target_": "built_here.Part", "resources": {"cores": 1}, "code": "pin", "version": 2}) == Part()
    inner = build({"_target_": "built_here.Whole", "part": {"_target_": "built_here.Plain", "version": 2}})
    assert inner.part.given == {"version": 2}


@pytest.mark.parametrize(
    ("config", "path", "problem"),
    [
        ({"_target_": "built_here.Part", "q": 1}, "q", "Part has no such field; it has k"),
        (
            {"_target_": "built_here.Whole", "parts": [{"_target_": "built_here.Part", "q": 1}]},
            "parts.0.q",
            "Part has no such field; it has k",
        ),
        ({"_target_": "built_here.Nothing"}, "_target_", "built_here has no Nothing"),
        (
            {"_target_": "built_here.Whole", "part": {"_target_": "built_here.Nothing"}},
            "part._target_",
            "built_here has no Nothing",
        ),
    ],
)
def test_a_name_that_a_class_does_not_take_is_told_with_its_path(config: Any, path: str, problem: str) -> None:
    with pytest.raises(NotAField) as refused:
        build(config)
    assert refused.value.args == (path, problem)
