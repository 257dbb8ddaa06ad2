"""References between stages and files, values with errors that name the key, bounds of schemas."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING, OmegaConf

from pipeline.config import check, nearest, register_resolvers, resolved
from pipeline.errors import UsageError


def rule(what: str, **bounds: Any) -> dict[str, Any]:
    return {"rule": {"what": what, "least": None, "most": None, "above": None, "choices": (), "text": False} | bounds}


@dataclasses.dataclass
class Train:
    rate: float | None = dataclasses.field(default=0.1, metadata=rule("above 0", above=0))
    kind: str = dataclasses.field(default="a", metadata=rule("a or b", choices=("a", "b")))
    names: list[str] = dataclasses.field(default_factory=lambda: ["x"], metadata=rule("a name", text=True, least=1))
    second: str | None = None
    third: str | None = dataclasses.field(default=None, metadata={"needs": ("second", "name a second first")})


@dataclasses.dataclass
class Run:
    seed: int = dataclasses.field(default=MISSING, metadata=rule("0 or more", least=0))


def test_references_are_texts_that_say_what_they_refer_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_resolvers()
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create({"a": "${stage:sft}", "b": "${file:x.csv}"})
    assert resolved(config, "") == {"a": "stage://sft", "b": f"file://{tmp_path}/x.csv"}


def test_a_missing_value_and_a_broken_interpolation_name_the_key() -> None:
    voice = {"word": "???", "said": "${.word}"}
    config = OmegaConf.create({"voice": voice, "stages": {"say": {"word": "${voice.wrod}"}, "a": "${voice.said}"}})
    for path in ("voice", "voice.word", "voice.said", "stages.a"):
        with pytest.raises(UsageError, match=r"^voice\.word: has no value yet; give one with voice\.word=…$"):
            resolved(config, path)
    with pytest.raises(UsageError, match=r"^voice\.wrod: Interpolation key 'voice\.wrod' not found$"):
        resolved(config, "stages.say")


def test_the_closest_choice_is_suggested_or_none() -> None:
    assert nearest("btea", ["beta", "k"]) == "; did you mean 'beta'?"
    assert nearest("x", ["beta"]) == ""


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ({"rate": 0.0}, r"train\.rate: 0\.0 is not above 0"),
        ({"rate": float("inf")}, r"train\.rate: inf is not above 0"),
        ({"kind": "c"}, r"train\.kind: c is not a or b"),
        ({"names": ["x", ""]}, r"train\.names:  is not a name"),
        ({"third": "z"}, "train: name a second first"),
    ],
)
def test_a_value_outside_its_bounds_is_named(override: dict[str, Any], line: str) -> None:
    config = OmegaConf.create({"train": OmegaConf.structured(Train)})
    check(config, {})
    config.train = OmegaConf.merge(config.train, override)
    with pytest.raises(UsageError, match=f"^{line}$"):
        check(config, {})
    check(config, {}, "elsewhere")  # that key is not on the way


def test_null_and_what_is_needed_are_let_pass() -> None:
    train = OmegaConf.merge(OmegaConf.structured(Train), {"rate": None, "second": "y", "third": "z"})
    check(OmegaConf.create({"train": train}), {})


@pytest.mark.parametrize(("seed", "shown"), [(-1, "-1"), ("soon", "soon"), (None, "null")])
def test_keys_that_stand_in_no_group_are_held_against_the_schemas_given(seed: Any, shown: str) -> None:
    config = OmegaConf.create({"evaluation": {"seed": seed}})
    check(config, {})
    with pytest.raises(UsageError, match=rf"^evaluation\.seed: {shown} is not 0 or more$"):
        check(config, {"evaluation": Run})


def test_a_schema_adds_no_key() -> None:
    config = OmegaConf.create({"evaluation": {}})
    check(config, {"evaluation": Run})
    assert config == {"evaluation": {}}
