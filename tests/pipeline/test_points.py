"""Points of a sweep: values laid over a configuration that they share."""

import dataclasses

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import UsageError
from pipeline.points import Composition, Point


@pytest.fixture
def shared() -> Composition:
    return Composition(
        OmegaConf.create(
            {
                "method": {"beta": 1, "k": 5},
                "stages": {"decode": {"beta": "${method.beta}", "part": {"k": "${method.k}"}}, "train": {"rate": 2}},
                "whole": "${stages.decode}",
            }
        )
    )


def test_a_value_reaches_all_that_depends_on_it(shared: Composition) -> None:
    point = Point("", shared, (("method.k", 7),))
    assert point.resolve("stages.decode") == {"beta": 1, "part": {"k": 7}}
    assert point.resolve("whole.part.k") == 7
    assert point.resolve("stages.train") == {"rate": 2}


def test_points_share_what_no_value_of_theirs_reaches(shared: Composition) -> None:
    one, other = (Point("", shared, (("method.k", k),)) for k in (6, 7))
    assert one.resolve("stages.train") is other.resolve("stages.train")
    assert one.variant("stages.train") == other.variant("stages.train")
    assert one.variant("stages.decode") != other.variant("stages.decode")
    assert one.variant("stages.decode") == Point("", shared, (("method.k", 6),)).variant("stages.decode")


def test_true_and_one_are_two_values(shared: Composition) -> None:
    found = [Point("", shared, (("method.beta", value),)).resolve("stages.decode.beta") for value in (1, True, 1.0)]
    assert list(map(repr, found)) == ["1", "True", "1.0"]


def test_points_of_two_compositions_share_nothing() -> None:
    one, other = (Point.of(OmegaConf.create({"a": 1})) for _ in range(2))
    assert one.variant("a") != other.variant("a")


def test_nothing_of_a_point_stays_in_the_configuration(shared: Composition) -> None:
    point = Point("", shared, (("method.k", 7),))
    assert point.config.method.k == 7
    assert shared.config.method.k == 5
    with shared.laid_over((("method.k", 7),)):
        assert shared.config.method.k == 7
    assert shared.config.method.k == 5
    OmegaConf.set_struct(shared.config, True)
    with pytest.raises(OmegaConfBaseException), shared.laid_over((("method.k", 7), ("method.q", 1))):
        pass
    assert shared.config.method.k == 5


def test_a_point_is_held_against_the_schemas_that_it_is_given(shared: Composition) -> None:
    rule = {"what": "at most 5", "least": None, "most": 5, "above": None, "choices": (), "text": False}

    @dataclasses.dataclass
    class Method:
        k: int = dataclasses.field(default=0, metadata={"rule": rule})

    Point("", shared).check({"method": Method})
    with pytest.raises(UsageError, match=r"^method\.k: 7 is not at most 5$"):
        Point("", shared, (("method.k", 7),)).check({"method": Method})
