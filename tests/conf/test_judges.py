"""Judges as conf/judge/ seats them: what is asked, in which order, for which price, by which keys."""

from typing import Any

import pytest
from hydra import compose

from conf.schemas.whole import WHOLE
from pipeline.config import check
from pipeline.errors import UsageError
from pipeline.graph import Graph
from pipeline.points import Point
from stages.judge.judge import Judge


@pytest.mark.parametrize("judge", ["reward", "openai", "compatible"])
def test_every_judge_is_planned_against_the_base_policy(judge: str, needed: dict[str, list[str]]) -> None:
    graph = Graph([Point.of(compose("config", [f"judge={judge}", "goal=[judge]", *needed.get(f"judge={judge}", [])]))])
    (key,) = graph.goals
    assert {"decode", "reference"} <= set(graph.nodes[key].inputs)


def test_a_judge_is_priced_while_planning_and_a_second_one_keeps_its_own_keys() -> None:
    second = ["judge@second_judge=compatible", "second_judge.model=x", "second_judge.base_url=http://127.0.0.1:8000/v1"]
    (node,) = [
        node
        for node in Graph([Point.of(compose("config", ["judge=openai", *second]))]).nodes.values()
        if node.name == "judge"
    ]
    judge = Judge(**{name: value for name, value in node.config.items() if name != "_target_"})
    found = judge.estimate()
    assert found["calls"] == 2 * 2 * (64 + 20)  # judges · orders · (test prompts + the null model's)
    assert found["dollars"] is None  # the second one's price is not known
    assert "no price is known for x" in found["note"]
    assert node.config_key("judges.main.runtime.max_cost") == "judge.max_cost"
    assert node.config_key("judges.second.judge.runtime.max_cost") == "second_judge.max_cost"
    assert node.config_key("judges.second.judge.runtime.max_cost_run") == "max_cost"
    assert node.config_key("judges.second.order") == "second_judge.order"
    assert node.config_key("canary") == "judge.canary"


def judging(*overrides: str) -> Any:
    """The one node of the stage `judge` in a run with these overrides."""
    config = compose("config", list(overrides))
    check(config, WHOLE)
    (node,) = [node for node in Graph([Point.of(config)]).nodes.values() if node.name == "judge"]
    return node


def calls(*overrides: str) -> int:
    """Questions that the judges of such a run will put at most."""
    return Judge(**{k: v for k, v in judging(*overrides).config.items() if k != "_target_"}).estimate()["calls"]


def test_each_judge_has_an_order_and_a_canary_of_its_own() -> None:
    both = ["judge=reward", "judge@second_judge=openai"]
    # (64 test prompts + the null model's 20) · 2 orders; the reward asks nobody, and its null model's 1000 are its own
    assert calls(*both) == 168
    assert calls(*both, "judge.canary=0", "judge.order=as_is") == 168
    assert calls(*both, "second_judge.canary=3") == 134
    assert calls(*both, "second_judge.order=seeded") == 84


def test_one_judge_is_configured_as_it_was_before_there_could_be_two() -> None:
    config = judging("judge=openai").config
    assert (config["order"], config["canary"]) == ("both", 20)
    assert config["judges"]["second"] is None
    assert config["judges"]["main"]["_target_"] == "stages.judge.api_judge.ApiJudge"
    assert set(config) == {
        "_target_", "generations", "reference_generations", "prompts", "parts", "judges", "order", "canary", "expected",
        "runtime",
    }  # fmt: skip


@pytest.mark.parametrize("goal", ["compare", "judge"])
def test_a_second_judge_without_a_first_is_refused_before_anything_runs(goal: str) -> None:
    with pytest.raises(UsageError) as refused:
        check(compose("config", ["judge@second_judge=reward", f"goal=[{goal}]"]), WHOLE)
    assert str(refused.value) == (
        "second_judge: nobody would judge: choose a first judge, as judge=reward, or no second, judge@second_judge=none"
    )
