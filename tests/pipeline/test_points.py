"""Points of a sweep: what a configuration reads, so that values reach every stage that depends on them."""

import pytest
from omegaconf import OmegaConf

from pipeline.interpolation import depends_on


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
