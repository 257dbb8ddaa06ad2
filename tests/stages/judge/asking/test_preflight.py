"""The first question shows whether the server can be this judge; what it lacks is named with the way out."""

from pathlib import Path
from typing import Any

import pytest

from stages.errors import BadInput
from stages.judge.api_judge import ApiJudge
from stages.judge.asking.preflight import preflight
from tests.stages.judge.judging import api_judge, write_methods
from tests.stages.servers.loopback import Fault, Loopback, completion
from tests.stages.servers.sending import client, ok


def good_preflight(body: dict[str, Any], n: int) -> Any:
    if "logprobs" in body:
        return completion("m", logprobs={"m": -0.1, "M": -3.0})
    if "response_format" in body:
        return completion('{"rationale": "Paris is right.", "verdict": "A"}', completion_tokens=9)
    return completion("Paris.\n[[A]]", completion_tokens=9)


def refusing(parameter: str, message: str = "") -> Any:
    error = {"message": message or f"Unsupported parameter: '{parameter}'", "param": None if message else parameter}

    def respond(body: dict[str, Any], n: int) -> Any:
        return Fault("status", 400, body={"error": error}) if parameter in body else good_preflight(body, n)

    return respond


@pytest.mark.parametrize(
    ("change", "respond", "field", "says"),
    [
        ({}, lambda b, n: completion("m", model="other"), "model", "answers as 'other'"),
        ({}, lambda b, n: completion("m"), "mode", "returns none"),
        ({}, refusing("logprobs"), "mode", "refuses logprobs"),
        ({}, refusing("temperature"), "temperature", "set temperature=null"),
        ({}, refusing("max_completion_tokens"), "token_limit", "set token_limit=max_tokens"),
        (
            {"token_limit": "max_tokens"},
            refusing("max_tokens", "max_tokens is not supported here, use max_completion_tokens instead"),
            "token_limit", "set token_limit=max_completion_tokens",
        ),
        ({}, lambda b, n: completion("m and on", logprobs={"m": -1.0, "M": -1.0}, completion_tokens=50),
         "token_limit", "ignores max_completion_tokens=1"),
        ({"mode": "structured", "max_tokens": 99}, lambda b, n: completion("Paris is better"), "mode", "ignores it"),
        ({"mode": "structured", "max_tokens": 99}, refusing("response_format"), "mode", "refuses response_format"),
        ({"mode": "text", "max_tokens": 99}, lambda b, n: completion(" "), "model", "writes nothing"),
        ({}, lambda b, n: Fault("status", 404, body={"error": {"message": "no such model"}}), "model", "404"),
        ({}, lambda b, n: Fault("status", 400, body={"error": {"message": "what?"}}), "base_url", "what?"),
        ({}, lambda b, n: Fault("status", 500), "base_url", "no usable answer"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_this_judge_is_refused_before_any_verdict(
    tmp_path: Path, run_stage, change: dict[str, Any], respond: Any, field: str, says: str
) -> None:
    payloads = write_methods(tmp_path, ["aa"] * 5, ["b"] * 5)
    with Loopback(respond) as server:
        with pytest.raises(BadInput) as refused:
            run_stage(payloads, {"main": api_judge(server.base_url, **change)})
        assert not server.answered
    assert refused.value.field == f"judges.main.{field}"
    assert says in refused.value.problem
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mode", ["logprob", "structured", "text"])
def test_a_server_that_can_is_let_through(tmp_path: Path, mode: str) -> None:
    with Loopback(good_preflight) as server:
        judge: ApiJudge = api_judge(server.base_url, mode=mode, max_tokens=1 if mode == "logprob" else 99)
        preflight(judge, client(server.base_url, tmp_path))
    assert server.preflights == 1


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["aa"], ["b"])
    with Loopback(ok) as server:
        base_url = server.base_url
    with pytest.raises(BadInput, match=r"judges\.main\.base_url: no usable answer from http://127\.0\.0\.1:\d+/v1"):
        run_stage(payloads, {"main": api_judge(base_url)})
