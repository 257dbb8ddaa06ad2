"""The Batch API: many requests in one file, answers within a day at a lower price, into the same record.

A batch gets a name, which is recorded before the batch is handed over and is part of the batch's metadata. So a run
that was killed at any moment finds its batches by their names and waits for them; none is handed over twice.
"""

import hashlib
import io
import itertools
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from stages.errors import BadInput
from stages.servers.client import Client
from stages.servers.request import CHAT, Reply, Request
from stages.servers.request_cache import RequestCache
from stages.servers.wire import RETRIED, NotOffered, Unanswered

MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
"""What the API takes in one file (its limit is 200 MB)."""
ROUNDS = 3
"""How often requests that expired, or that the server failed on, are handed over again."""
METADATA = "tiltlab_batch"
OVER = ("completed", "failed", "expired", "cancelled")
Result = TypeVar("Result")


class Silent(BadInput):
    """A call brought no answer. It may have done its work all the same."""


def fetch_batch(client: Client, requests: Sequence[Request], progress: Callable[[int], None]) -> dict[str, Reply]:
    """A reply to every request, by key, through batches.

    Raises what `Client.fetch` raises; BudgetReached where not even one more request fits.
    """
    todo = {request.key: request for request in requests}
    replies = client.recorded(list(todo.values()))
    rounds = dict.fromkeys(todo, 0)
    while waiting := {key: request for key, request in todo.items() if key not in replies}:
        with client.cache.claimed(_digest("submitting", [client.wire.base_url])):
            batches = _relevant(client.cache, waiting)
            fresh = [r for key, r in waiting.items() if not any(key in keys for keys in batches.values())]
            for request in fresh:
                if rounds[request.key] == ROUNDS:
                    replies[request.key] = Reply(
                        request.key, failure="unreachable", problem=f"{ROUNDS} batches without an answer"
                    )
            fresh = [r for r in fresh if r.key not in replies and r.key not in client.cache]
            reserved = {
                name: sum(client.worst_cost(waiting[k], batch=True) for k in keys if k in waiting)
                for name, keys in batches.items()
            }
            for name, dollars in reserved.items():
                client.budget.commit(name, dollars)
            handed = _hand_over(client, fresh, must=not batches)
            for request in itertools.chain.from_iterable(handed.values()):
                rounds[request.key] += 1
        _await(client, {*batches, *handed}, waiting, replies, progress)
        replies |= {
            k: Reply(k, found) for k in waiting if k not in replies and (found := client.cache.get(k)) is not None
        }
    return replies


def _relevant(cache: RequestCache, waiting: Mapping[str, Request]) -> dict[str, set[str]]:
    """Open batches, of whichever process, that hold one of the requests."""
    return {name: set(keys) for name, keys in cache.batches.items() if not waiting.keys().isdisjoint(keys)}


def _hand_over(client: Client, requests: Sequence[Request], must: bool) -> dict[str, list[Request]]:
    """Hands over as many requests as the budget has room for, in files that the API takes; by the batches' names."""
    handed: dict[str, list[Request]] = {}
    position = 0
    while position < len(requests):
        name = secrets.token_hex(
            32
        )  # not of its requests alone: those of a batch that expired may be handed over again
        part: list[Request] = []
        lines: list[bytes] = []
        size = 0
        while position < len(requests) and len(part) < MOST_REQUESTS and size < MOST_BYTES:
            request = requests[position]
            worst = client.worst_cost(request, batch=True)
            if not client.budget.fits(worst):
                break
            client.budget.reserve(name, worst)
            part.append(request)
            line = {"custom_id": request.key, "method": "POST", "url": "/v1" + CHAT, "body": dict(request.body)}
            lines.append(json.dumps(line, ensure_ascii=True).encode() + b"\n")
            size += len(lines[-1])
            position += 1
        if not part:
            if must and not handed:
                client.budget.require(client.worst_cost(requests[position], batch=True))  # raises BudgetReached
            break
        keys = [request.key for request in part]
        client.cache.open_batch(name, keys)
        try:
            _create(client, name, b"".join(lines))
        except Silent:  # it may have been taken: whoever runs next looks for it by its name
            raise
        except BadInput:
            _give_up(client, name)
            raise
        handed[name] = part
    return handed


def _give_up(client: Client, name: str) -> None:
    """Ends a batch that the server refused. Nothing was bought, so what was set aside for it is free again."""
    client.cache.close_batch(name)
    client.budget.settle(name, 0.0)


def _create(client: Client, name: str, content: bytes) -> None:
    files, batches = client.wire.sdk.files, client.wire.sdk.batches
    file = _persist(client, lambda: files.create(file=("batch.jsonl", io.BytesIO(content)), purpose="batch"))
    _persist(
        client,
        lambda: batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={METADATA: name}
        ),
        # A creation whose answer was lost may have happened: look before creating again.
        unless=lambda: _find(client, name) is not None,
    )


def _await(
    client: Client,
    names: set[str],
    waiting: Mapping[str, Request],
    replies: dict[str, Reply],
    progress: Callable[[int], None],
) -> None:
    """Looks at the batches until all are over, and records what they brought."""
    pending = set(names)
    while pending:
        for name in sorted(pending):
            batch = _find(client, name)
            if batch is not None and batch.status not in OVER:
                continue
            with client.cache.claimed(name):
                if name in client.cache.batches:
                    if batch is not None and batch.status == "failed" and not batch.output_file_id:
                        _give_up(client, name)
                        raise BadInput("runtime.batch", _refusal(client, batch))
                    cost = _collect(client, name, batch, waiting, replies) if batch is not None else 0.0
                    client.cache.close_batch(name)
                    client.budget.settle(name, cost)
                else:  # another process has collected it; its answers are counted when they are read
                    known = [key for key in waiting if key not in replies and key in client.cache]
                    spent = sum(
                        client.cost(key, found) for key in known if (found := client.cache.get(key)) is not None
                    )
                    client.budget.settle(name, spent)
            pending.discard(name)
        progress(len(replies))
        seconds = client.traffic.poll if pending else 0.0
        while seconds > 0:
            client.sleep(min(seconds, 1.0))
            progress(len(replies))
            seconds -= 1.0


def _collect(client: Client, name: str, batch: Any, waiting: Mapping[str, Request], replies: dict[str, Reply]) -> float:
    """Records a batch's answers and takes its refusals; dollars that they cost."""
    cost = 0.0
    for file in (batch.output_file_id, batch.error_file_id):
        if not file:
            continue
        text = client.wire.redact(_persist(client, lambda f=file: client.wire.sdk.files.content(f).text))
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                key, answer = entry["custom_id"], entry.get("response") or {}
            except (ValueError, KeyError, TypeError):
                continue  # its request stays unanswered and is handed over again
            status, body = answer.get("status_code"), answer.get("body")
            if status == 200 and isinstance(body, dict):
                if key not in client.cache:
                    client.cache.record(key, body, batch=name)
                    client.bought += 1
                    cost += client.cost(
                        key, body, client.worst_cost(waiting[key], batch=True) if key in waiting else 0.0
                    )
                if key in waiting:
                    replies[key] = Reply(key, body)
            elif isinstance(status, int) and 400 <= status < 500 and status not in RETRIED and key in waiting:
                problem = f"{status}: {_first_line(_message(body))}"
                replies[key] = Reply(key, failure="bad_request", problem=problem)
    return cost


def _refusal(client: Client, batch: Any) -> str:
    """The server's own reason, in one line."""
    errors = [str(e.message) for e in (batch.errors.data or []) if e.message] if batch.errors else []
    return f"the server refused the batch: {_first_line(client.wire.redact(errors[0]) if errors else '')}"


def _no_batches(said: str) -> BadInput:
    return BadInput("runtime.batch", f"the server has no Batch API like this ({said}); set batch=false")


def _message(body: Any) -> str:
    """The reason that a refused request's answer gives: `{error: {message}}`, or what some servers write instead."""
    error = body.get("error", body.get("detail")) if isinstance(body, Mapping) else body
    return str((error.get("message") if isinstance(error, Mapping) else error) or "")


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0][:300]


def _find(client: Client, name: str) -> Any | None:
    """The server's batch of this name; None where it was never created."""
    listed = _persist(client, lambda: list(client.wire.sdk.batches.list(limit=100)))
    return next((b for b in listed if (b.metadata or {}).get(METADATA) == name), None)


def _persist(client: Client, what: Callable[[], Result], unless: Callable[[], bool] = lambda: False) -> Any:
    """A call, tried again while the server is busy. Raises Silent where no answer comes, BadInput where it is refused.

    `unless`: whether a call whose answer was lost has done its work.
    """
    problem = ""
    for attempt in range(1, client.traffic.attempts + 1):
        try:
            return client.wire.call(what)
        except NotOffered as error:  # the preflight has shown that it has the model
            raise _no_batches(error.said) from None
        except Unanswered as error:
            if not error.retry:
                raise _no_batches(error.problem) from None
            problem = error.problem
            client.wait(error.wait, attempt)
            try:
                if error.billed and unless():
                    return None
            except BadInput as blind:
                raise Silent(blind.field, blind.problem) from None
    raise Silent("base_url", f"no answer to a batch call after {client.traffic.attempts} attempts ({problem})")


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
