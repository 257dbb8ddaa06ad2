"""Where interpolations point: the key behind a value, and the keys that a value depends on."""

import pytest
from omegaconf import OmegaConf

from pipeline.interpolation import absolute, config_key, depends_on, written


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("${a.b}", {"a.b"}),
        ("${a.${b.c}}", {"a", "b.c"}),
        ("${a.${b.c}.d}", {"a", "b.c"}),
        ("${file:${a.b}}", {"a.b"}),
        ("${stage:value}", set()),
        ("${oc.select:a.b,1}", {"a.b"}),
        ("${.b}", {"x.b"}),
        ("${..b}", {"b"}),
        ("${${a}.b}", {"a", ""}),
    ],
)
def test_what_an_interpolation_may_read(text: str, keys: set[str]) -> None:
    assert depends_on(OmegaConf.create({"x": {"y": text}}), "x.y") - {"x.y"} == keys


def test_a_dependency_is_followed_through_mappings_lists_and_other_keys() -> None:
    config = OmegaConf.create({"top": "${mid}", "mid": {"a": ["x", "${low.b}"]}, "low": {"b": 1, "c": 2}})
    assert depends_on(config, "top") == {"top", "mid", "low.b"}
    assert depends_on(config, "top.a") == {"top.a", "mid"} | depends_on(config, "mid") - {"low.c"}
    assert "low.b" in depends_on(config, "mid.a.1")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("stages.one.guide.k", "method.k"),  # guide is ${method.guide}, whose k is ${..k}
        ("stages.one.beta", "method.beta"),
        ("stages.one.word", "stages.one.word"),  # said here
        ("stages.two.rate", "policy.rate"),  # the slot's filling
        ("stages.two.resources.cores", "stages.two.resources.cores"),  # beside the slot
        ("stages.two.resources.processes", "machines.n"),  # the slot's filling has more of the same mapping
        ("stages.one.all.1.size", "part.size"),
        ("nowhere.at.all", "nowhere.at.all"),
    ],
)
def test_a_field_is_traced_to_the_key_that_sets_it(path: str, key: str) -> None:
    config = OmegaConf.create(
        {
            "method": {"k": 20, "beta": 1.0, "guide": {"k": "${..k}"}},
            "part": {"size": 3},
            "machines": {"n": 2},
            "policy": {"rate": 0.1, "resources": {"processes": "${machines.n}"}},
            "stages": {
                "one": {"guide": "${method.guide}", "beta": "${method.beta}", "word": "x", "all": [1, "${part}"]},
                "two": {"slot": "${policy}", "resources": {"cores": 1}},
            },
        }
    )
    assert config_key(config, path) == key


def test_dots_count_from_the_mapping_around_a_text() -> None:
    assert absolute(".b", ["x", "y"]) == ["x", "b"]
    assert absolute("..b.c", ["x", "y"]) == ["b", "c"]
    assert absolute("...b", ["x", "y", "0"]) == ["b"]  # a list's item: the list, the mapping around it, its own
    assert absolute("b", ["x", "y"]) == ["b"]


def test_what_is_written_below_an_interpolation_is_the_interpolation() -> None:
    config = OmegaConf.create({"a": {"b": "${c}"}, "c": {"d": 1}})
    assert written(config, ["a", "b", "d"]) == (["a", "b"], "${c}")
    assert written(config, ["c"]) == (["c"], {"d": 1})
    assert written(config, ["c", "e"]) == (["c", "e"], None)
