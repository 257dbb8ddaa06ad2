"""The bounds of what stands in config.yaml itself."""

import pytest
from hydra import compose

from conf.schemas.whole import WHOLE
from pipeline.config import check
from pipeline.errors import UsageError
from pipeline.points import Composition, Point


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("evaluation.samples=two", "evaluation.samples: two is not a positive number of responses"),
        ("evaluation.samples=0", "evaluation.samples: 0 is not a positive number of responses"),
        ("evaluation.samples=1.5", "evaluation.samples: 1.5 is not a positive number of responses"),
        ("evaluation.rows=true", "evaluation.rows: True is not a positive number of sequences"),
        ("evaluation.seed=-1", "evaluation.seed: -1 is not a whole number, 0 or more"),
        ("evaluation.parts=test", "evaluation.parts: test is not a list of parts"),
        ("compare.draws=abc", "compare.draws: abc is not a number of draws, 1,000 or more"),
        ("compare.draws=10", "compare.draws: 10 is not a number of draws, 1,000 or more"),
        ("compare.slack=x", "compare.slack: x is not a number of standard errors, 0 or more"),
        ("compare.slack=nan", "compare.slack: nan is not a number of standard errors, 0 or more"),
        ("compare.seed=-1", "compare.seed: -1 is not a whole number, 0 or more"),
        ("+compare.shown=1.5", "compare.shown: 1.5 is not a number of prompts, 0 or more"),
        ("+compare.shown=-1", "compare.shown: -1 is not a number of prompts, 0 or more"),
        ("compare.select_part=null", "compare.select_part: null is not a part, or empty (none is chosen)"),
        ("compare.report_part=", "compare.report_part:  is not a part"),
        ("max_cost=abc", "max_cost: abc is not an amount of dollars, 0 or more"),
        ("max_cost=-1", "max_cost: -1 is not an amount of dollars, 0 or more"),
        ("name=null", "name: null is not a name"),
        ("store=null", "store: null is not a folder"),
        ("runs=", "runs:  is not a folder"),
        ("objective=[1,[]]", "objective: [] is not a stage's metric (stage.metric) or a list of them"),
    ],
)
def test_what_stands_in_the_configuration_itself_is_held_against_its_bounds(override: str, line: str) -> None:
    with pytest.raises(UsageError) as refused:
        check(compose("config", [override]), WHOLE)
    assert str(refused.value) == line


def test_a_value_of_a_sweep_is_held_against_the_same_bounds() -> None:
    shared = Composition(compose("config", []))
    for value in ("two", 0):
        with pytest.raises(UsageError, match=rf"evaluation.samples: {value} is not a positive number of responses"):
            Point("", shared, (("evaluation.samples", value),)).check(WHOLE)


def test_the_bounds_of_the_configuration_itself_let_pass_what_has_a_meaning() -> None:
    given = ["compare.select_part=", "compare.slack=0.5", "+compare.shown=0"]
    config = compose("config", [*given, "max_cost=2", "name=2026", "objective=[a.b]"])
    check(config, WHOLE)
    assert (config.compare.select_part, config.compare.slack, config.compare.draws) == ("", 0.5, 2000)
    own = compose("config", ["compare._target_=mine.Compare", "compare.draws=few"])
    check(own, WHOLE)  # a comparison of another class knows its own words
