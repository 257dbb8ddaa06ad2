"""Requests through the Batch API of a loopback server, straight from a client: no judge is needed for them."""

from pathlib import Path
from typing import Any

import pytest

from stages.errors import BadInput
from stages.servers import batch
from stages.servers.batch import fetch_batch
from stages.servers.client import Client
from stages.servers.request_cache import RequestCache
from tests.stages.servers.loopback import Fault, Loopback, completion
from tests.stages.servers.sending import client, nothing, ok, requests


def batching(base_url: str, folder: Path) -> Client:
    return client(base_url, folder, batch=True, poll=0.01, attempts=2)


def test_every_request_gets_its_own_answer_from_one_batch(tmp_path: Path) -> None:
    def echo(body: dict[str, Any], n: int) -> Any:
        return completion(body["messages"][0]["content"])

    asked_for: list[int] = []
    with Loopback(echo) as server:
        asked = requests(server.base_url, 12)
        replies = fetch_batch(batching(server.base_url, tmp_path), asked, asked_for.append)
        assert len(server.batches) == 1
        assert not server.arrivals  # none went out by itself
    # The server answers in an order of its own; each answer finds its request by the key.
    texts = [replies[request.key].response["choices"][0]["message"]["content"] for request in asked]  # type: ignore[index]
    assert texts == [str(i) for i in range(12)]
    assert asked_for[-1] == 12
    assert all(RequestCache(tmp_path).batched(request.key) for request in asked)


def test_what_is_recorded_is_not_handed_over(tmp_path: Path) -> None:
    with Loopback(ok) as server:
        client(server.base_url, tmp_path).fetch(requests(server.base_url, 3), nothing)
        replies = fetch_batch(batching(server.base_url, tmp_path), requests(server.base_url, 5), nothing)
        (made,) = server.batches.values()
        handed = server.files[made["input_file_id"]].splitlines()
    assert len(handed) == 2
    assert all(reply.response for reply in replies.values())
    assert server.bought_twice == 0


def test_a_request_that_no_batch_answers_is_unreachable_after_three(tmp_path: Path) -> None:
    with Loopback(lambda body, n: Fault("status", 500)) as server:
        (reply,) = fetch_batch(
            batching(server.base_url, tmp_path), requests(server.base_url, 1), nothing
        ).values()  # fmt: skip
        assert len(server.batches) == 3
    assert (reply.failure, reply.problem) == ("unreachable", "3 batches without an answer")


def test_many_requests_go_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_REQUESTS", 4)
    with Loopback(ok) as server:
        replies = fetch_batch(batching(server.base_url, tmp_path), requests(server.base_url, 10), nothing)
        sizes = [len(server.files[made["input_file_id"]].splitlines()) for made in server.batches.values()]
    assert sizes == [4, 4, 2]
    assert len(replies) == 10


def test_a_batch_of_another_process_is_waited_for(tmp_path: Path) -> None:
    with Loopback(ok) as server:
        server.batch_polls = 10**9
        first = batching(server.base_url, tmp_path)

        class Killed(BaseException):
            pass

        def dies(done: int) -> None:
            raise Killed

        with pytest.raises(Killed):
            fetch_batch(first, requests(server.base_url, 6), dies)
        first.cache.close()
        server.batch_polls = 0
        replies = fetch_batch(batching(server.base_url, tmp_path), requests(server.base_url, 6), nothing)
        assert len(server.batches) == 1
    assert all(reply.response for reply in replies.values())


def test_a_server_that_stays_silent_is_named_with_the_attempts(tmp_path: Path) -> None:
    with Loopback(ok) as server:
        server.http.RequestHandlerClass.do_GET = lambda self: self.send_error(503)  # type: ignore[attr-defined]
        with pytest.raises(BadInput, match=r"base_url: no answer to a batch call after 2 attempts \(503") as silent:
            fetch_batch(batching(server.base_url, tmp_path), requests(server.base_url, 1), nothing)
    assert "\n" not in str(silent.value)
