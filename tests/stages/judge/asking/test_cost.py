"""What a plan says about a judge before anything has run: cheap, offline, and honest about what it does not know."""

import subprocess
import sys
from typing import Any

import pytest

from stages.judge.asking.cost import Expected, expected_cost
from stages.judge.asking.template import load_template
from stages.judge.judge import Judge
from stages.judge.reward_judge import RewardJudge
from tests.stages.judge.judging import PRICES, api_judge
from tests.stages.servers.loopback import MODEL
from tests.stages.servers.sending import quick


def planned(judges: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Upstream stages have not run: references are still references."""
    given = {
        "generations": "stage://decode", "reference_generations": "stage://reference", "prompts": "stage://prompts",
        "judges": judges, "parts": ["test"], "canary": 20,
        "expected": Expected({"train": {"size": 500}, "test": {"size": 64}}, samples=2, response_tokens=25),
    }  # fmt: skip
    return Judge(**given | fields).estimate()


def test_items_times_orders_times_judges() -> None:
    judges = {"main": api_judge("http://127.0.0.1:9/v1"), "second": api_judge("http://127.0.0.1:9/v1", name="second")}
    template = load_template("hardened", "logprob")
    characters = len(template.system) + len(template.user) + len(template.answer)
    # (64 prompts · 2 samples + 20 of the null model) · 2 orders = 296; 4 characters a token:
    # an instruction of 250, two responses of 25 · 4, and the template
    prompt = round(296 * (250 + 2 * 100 + characters) / 4)
    found = planned(judges)
    assert found["calls"] == 2 * 296
    assert found["tokens"] == 2 * (prompt + 296)  # one token of answer each
    assert found["dollars"] == pytest.approx(2 * (prompt * 10 + 296 * 30) / 1e6)  # $10 and $30 a million
    assert found["note"] == f"{MODEL} at prices of 2026-01"
    assert planned(judges, order="seeded")["calls"] == 2 * 148
    assert planned(judges, canary=0)["calls"] == 2 * 256
    assert planned(judges, parts=[])["calls"] == 2 * 2 * (564 * 2 + 20)


def test_a_batch_costs_half() -> None:
    one, half = (planned({"main": api_judge("http://h/v1", runtime=quick(batch=b))})["dollars"] for b in (False, True))
    assert half == pytest.approx(one / 2)


def test_an_unknown_model_has_no_estimate_and_that_is_said() -> None:
    found = planned({"main": api_judge("http://h/v1", model="new-model"), "reward": RewardJudge(reward=None)})
    assert found["dollars"] is None
    assert found["calls"] == 296
    assert found["note"] == "no price is known for new-model: no estimate in dollars; asks nobody"


def test_a_reward_asks_nobody() -> None:
    found = planned({"main": RewardJudge(reward=None)})
    assert found == {"dollars": 0.0, "calls": 0, "tokens": 0, "note": "asks nobody"}


@pytest.mark.parametrize("expected", [Expected(), Expected({"train": 5}), Expected({"test": {"groups": 0.1}})])
def test_an_unknown_number_of_prompts_has_no_estimate(expected: Expected) -> None:
    found = planned({"main": api_judge("http://h/v1")}, expected=expected)
    assert (found["dollars"], found["calls"]) == (None, 0)
    assert found["note"] == "the number of prompts is not known: no estimate"


def test_a_judge_that_is_still_a_configuration_is_priced_like_the_judge_itself() -> None:
    fields = {
        "_target_": "stages.judge.api_judge.ApiJudge", "name": "loop", "model": MODEL, "base_url": "http://h/v1",
        "mode": "logprob", "template": "hardened", "max_tokens": 1, "prices": PRICES,
        "runtime": {"_target_": "stages.servers.traffic.Traffic", "batch": True},
    }  # fmt: skip
    built = api_judge("http://h/v1", runtime=quick(batch=True))
    expected = {"_target_": "stages.judge.asking.cost.Expected", "parts": {"test": 64}, "samples": 1}
    assert planned({"main": fields}, expected=expected) == planned({"main": built}, expected=Expected({"test": 64}))


def test_pricing_imports_nothing_heavy() -> None:
    code = (
        "import sys, stages.judge.judge, stages.judge.api_judge, stages.judge.reward_judge\n"
        "import stages.judge.asking.cost\n"
        "print(sorted({'torch', 'transformers', 'scipy', 'sklearn', 'openai', 'httpx2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_estimate_by_hand() -> None:
    table = {"as_of": "2026-01", "models": {"known": {"input": 1.0, "output": 2.0, "batch": 0.5}}}
    judge = {"model": "known", "prices": table, "max_tokens": 100, "runtime": {"batch": True}}
    found = expected_cost(
        judge, items=90, canary=10, order="both",
        instruction_characters=400, output_characters=1050,
    )  # fmt: skip
    assert found.requests == 200  # (90 + 10) · 2
    assert found.prompt_tokens == 200_000  # 200 · (400 + 2·1050 + 1500) / 4
    assert found.completion_tokens == 20_000
    assert found.dollars == pytest.approx(0.12)  # half of 0.2 · $1 + 0.02 · $2
    assert expected_cost({"name": "reward"}, items=90).dollars == 0


def test_without_a_known_price_there_are_no_dollars() -> None:
    table = {"as_of": "2026-01", "models": {"known": {"input": 1.0, "output": 2.0, "batch": 0.5}}}
    unknown = expected_cost({"model": "known-2", "prices": table, "max_tokens": 1}, items=10)
    assert (unknown.requests, unknown.dollars) == (20, None)
    assert "no price is known for known-2" in unknown.note
