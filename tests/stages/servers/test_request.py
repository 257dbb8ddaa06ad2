"""A request and its key."""

import pytest

from stages.errors import BadInput
from stages.servers.request import Request, checked_endpoint


def test_the_key_of_a_request_holds_everything_that_can_change_its_answer() -> None:
    body = {"model": "a", "messages": [{"role": "user", "content": "q"}], "temperature": 0.0, "top_p": 1.0}
    keys = {
        Request("http://a/v1", body).key,
        Request("http://b/v1", body).key,
        Request("http://a/v1", body, sample=1).key,
        Request("http://a/v1", body | {"temperature": 1.0}).key,
        Request("http://a/v1", body | {"seed": 1}).key,
        Request("http://a/v1", body | {"response_format": {"type": "json_schema"}}).key,
        Request("http://a/v1", body | {"messages": [{"role": "user", "content": "q "}]}).key,
    }
    assert len(keys) == 7
    assert Request("http://a/v1", dict(reversed(body.items()))).key in keys


@pytest.mark.parametrize(
    ("given", "kept"),
    [("https://api.example.com/v1/", "https://api.example.com/v1"), ("http://[::1]:8000", "http://[::1]:8000")],
)
def test_an_address_is_kept_without_its_last_slash(given: str, kept: str) -> None:
    assert checked_endpoint(given) == kept


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://host:99999",
        "http://host:0",
        "http://a b",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match=r"base_url: .*is no http\(s\) address such as http://127\.0\.0\.1:8000/v1"):
        checked_endpoint(address)


@pytest.mark.parametrize("address", ["http://me:secret@host/v1", "https://host/v1?key=secret"])
def test_an_address_that_carries_a_secret_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(BadInput) as refused:
        checked_endpoint(address)
    assert refused.value.field == "base_url"
    assert "secret" not in str(refused.value)
