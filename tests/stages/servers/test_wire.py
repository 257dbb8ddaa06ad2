"""One sending over the wire: its errors are sorted, its key is kept out of every text."""

from typing import Any

import pytest

from stages.errors import BadInput
from stages.servers.budget import QuotaExhausted
from stages.servers.wire import NotOffered, Unanswered, Wire, read_key, retry_after, token_limit, used_tokens
from tests.stages.servers.loopback import Fault, Loopback, completion
from tests.stages.servers.sending import requests


def sent(respond: Any, *, timeout: float = 5.0, key: str | None = None) -> Any:
    """What one sending comes to: the response, or the error that it raised."""
    with Loopback(lambda body, n: respond) as server:
        wire = Wire(server.base_url, key, timeout)
        try:
            return wire.send(requests(server.base_url, 1)[0])
        except (Unanswered, BadInput) as error:
            return error
        finally:
            wire.close()


def test_an_answer_comes_back_as_it_is() -> None:
    assert sent(completion("fine", prompt_tokens=7)) == completion("fine", prompt_tokens=7)


@pytest.mark.parametrize(
    ("fault", "retry", "billed"),
    [
        (Fault("status", 503), True, False),
        (Fault("status", 429), True, False),
        (Fault("status", 400, body={"error": {"message": "too long"}}), False, False),
        (Fault("torn"), True, True),  # an answer was made, and was lost
        (Fault("reset_after"), True, True),
        (Fault("hang", headers={"seconds": "0.5"}), True, True),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else str(value),
)
def test_what_may_be_tried_again_and_what_may_have_been_billed(fault: Fault, retry: bool, billed: bool) -> None:
    error = sent(fault, timeout=0.2)
    assert isinstance(error, Unanswered)
    assert (error.retry, error.billed) == (retry, billed)


def test_a_connection_that_never_stood_was_not_billed() -> None:
    with Loopback(lambda body, n: completion()) as server:
        base_url = server.base_url
    with pytest.raises(Unanswered, match="connection: ") as error:
        Wire(base_url, None, 5.0).send(requests(base_url, 1)[0])
    assert (error.value.retry, error.value.billed) == (True, False)


def test_the_server_names_the_parameter_that_it_refuses_and_how_long_to_wait() -> None:
    refused = sent(Fault("status", 400, body={"error": {"message": "no", "param": "temperature"}}))
    assert (refused.parameter, refused.problem) == ("temperature", "400: no")
    assert sent(Fault("status", 429, headers={"Retry-After": "7"})).wait == 7.0
    assert sent(Fault("status", 400, headers={"Retry-After": "7"})).wait is None  # it is not tried again


@pytest.mark.parametrize(
    ("status", "error", "kind", "field"),
    [
        (401, {"message": "bad key"}, BadInput, "api_key_env"),
        (402, {"message": "pay", "code": "billing_hard_limit_reached"}, QuotaExhausted, "api_key_env"),
        (429, {"message": "over", "type": "insufficient_quota"}, QuotaExhausted, "api_key_env"),
        (403, {"message": "not yours"}, NotOffered, "model"),
        (404, {"message": "no such model"}, NotOffered, "model"),
    ],
)
def test_what_no_request_can_pass_is_refused_by_the_field_that_it_is_about(
    status: int, error: dict[str, str], kind: type[BadInput], field: str
) -> None:
    found = sent(Fault("status", status, body={"error": error}))
    assert type(found) is kind
    assert found.field == field
    assert f"{status}: {error['message']}" in found.problem


@pytest.mark.parametrize(("held", "says"), [(None, "has no PLANTED"), ("  ", "has no PLANTED"), ("a\nb", "is no key")])
def test_a_key_that_is_not_there_or_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch, held: str | None, says: str
) -> None:
    monkeypatch.delenv("PLANTED", raising=False)
    if held is not None:
        monkeypatch.setenv("PLANTED", held)
    with pytest.raises(BadInput, match=says) as refused:
        read_key("PLANTED")
    assert refused.value.field == "api_key_env"
    assert "a\nb" not in str(refused.value)
    assert read_key(None) == ""


def test_the_key_travels_and_its_echo_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "sk-planted-123456")
    with Loopback(lambda body, n: completion("you sent Bearer sk-planted-123456")) as server:
        wire = Wire(server.base_url, "PLANTED", 5.0)
        response = wire.send(requests(server.base_url, 1)[0])
        assert "Bearer sk-planted-123456" in server.headers[0].values()
    assert response["choices"][0]["message"]["content"] == "you sent Bearer [key]"
    assert "sk-planted" not in repr(wire)


def test_tokens_as_the_server_counts_them() -> None:
    assert used_tokens({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}) == (3, 4)
    assert used_tokens({"usage": None}) == used_tokens({}) == (0, 0)
    assert token_limit({"max_tokens": 5}) == token_limit({"max_completion_tokens": 5}) == 5
    assert token_limit({}) == 0


def test_retry_after_is_read_or_left_alone() -> None:
    assert retry_after({}) is None
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "-5"}) == 0
    assert retry_after({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT"}, now=lambda: 1792567680.0) == 10
