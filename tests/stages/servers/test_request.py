"""A request and its key."""

from stages.servers.request import Request


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
