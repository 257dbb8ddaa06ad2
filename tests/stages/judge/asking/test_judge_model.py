"""The fields of a model that judges, and the request that it makes of them."""

from pathlib import Path
from typing import Any

import pytest

from stages.errors import BadInput
from tests.stages.judge.judging import api_judge, write_methods
from tests.stages.servers.loopback import MODEL
from tests.stages.servers.sending import quick


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"base_url": "http://user:secret@host/v1"}, "judges.main.base_url", "do not belong here"),
        ({"base_url": "host:80"}, "judges.main.base_url", "no http"),
        ({"mode": "vibes"}, "judges.main.mode", "logprob, structured, text"),
        ({"template": "missing"}, "judges.main.template", "hardened"),
        ({"api_key_env": "NO_SUCH_KEY"}, "judges.main.api_key_env", "NO_SUCH_KEY"),
        ({"pattern": "("}, "judges.main.pattern", "no regular expression"),
        ({"extra": {"temperature": 1}}, "judges.main.extra", "field of its own"),
        ({"prices": None, "runtime": quick(max_cost=1.0)}, "judges.main.runtime.max_cost", "no price is known"),
        ({"prices": {"models": {MODEL: {"in": 1}}}}, f"judges.main.prices.models.{MODEL}", "dollars for a million"),
        ({"runtime": quick(rpm=0)}, "judges.main.runtime.rpm", "positive"),
        ({"max_tokens": 0}, "judges.main.max_tokens", "positive"),
        ({"token_limit": "max"}, "judges.main.token_limit", "max_completion_tokens"),
        ({"top_logprobs": 1}, "judges.main.top_logprobs", "2"),
    ],
)
def test_a_field_that_cannot_be_used_is_one_line(
    tmp_path: Path, run_stage, change: dict[str, Any], field: str, says: str
) -> None:
    payloads = write_methods(tmp_path, ["a"], ["b"])
    judge = api_judge("http://127.0.0.1:9/v1", **change)
    with pytest.raises(BadInput) as refused:
        run_stage(payloads, {"main": judge})
    assert refused.value.field == field
    assert says in refused.value.problem
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_request_holds_every_sampling_parameter_and_no_other() -> None:
    messages = [{"role": "user", "content": "?"}]
    body = api_judge("http://127.0.0.1:9/v1").body(messages, 0)
    assert body == {
        "model": MODEL, "messages": messages, "max_completion_tokens": 1, "n": 1, "temperature": 0.0, "top_p": 1.0,
        "logprobs": True, "top_logprobs": 5,
    }  # fmt: skip
    bare = api_judge("http://127.0.0.1:9/v1", mode="text", temperature=None, top_p=None, token_limit="max_tokens")
    assert bare.body(messages, 3) == {"model": MODEL, "messages": messages, "max_tokens": 1, "n": 1}


def test_the_seed_moves_with_every_asking() -> None:
    judge = api_judge("http://127.0.0.1:9/v1", seed=7, extra={"reasoning_effort": "low"})
    assert [judge.body([], sample)["seed"] for sample in (0, 2)] == [7, 9]
    assert judge.body([], 0)["reasoning_effort"] == "low"


def test_structured_verdicts_are_asked_for_by_a_schema_with_the_reasons_first() -> None:
    body = api_judge("http://127.0.0.1:9/v1", mode="structured", max_tokens=99).body([], 0)
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert list(schema["schema"]["properties"]) == ["rationale", "verdict"]


def test_a_server_may_answer_under_another_name() -> None:
    assert api_judge("http://h/v1").answers_as == MODEL
    assert api_judge("http://h/v1", returned_model="judge@main").answers_as == "judge@main"
