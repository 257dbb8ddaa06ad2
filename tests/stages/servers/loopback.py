"""Judges on 127.0.0.1: HTTP servers that speak as much of the chat-completions and Batch APIs as the tests need.

A server knows a request by its `Idempotency-Key` (or custom_id) and counts how often it *answered* each one (that is
what a real server bills), when requests arrived and how many were in flight at once.
"""

import email
import email.policy
import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "judge-2026-01-01"


@dataclass
class Fault:
    """Something else than a good answer. `kind`: `status`, `drop`, `reset_after`, `hang`, `torn`, or `raw`."""

    kind: str
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


def completion(
    content: str | None = "ok",
    *,
    logprobs: Mapping[str, float] | None = None,
    model: str = MODEL,
    finish: str = "stop",
    prompt_tokens: int = 100,
    completion_tokens: int = 1,
    **message: Any,
) -> dict[str, Any]:
    """A chat completion; `logprobs`: token → log-probability of the first position."""
    top = [{"token": token, "logprob": value, "bytes": None} for token, value in (logprobs or {}).items()]
    first = {"token": content, "logprob": -0.1, "bytes": None, "top_logprobs": top}
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message},
        "logprobs": {"content": [first]} if logprobs is not None else None,
    }
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage}


def digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def is_preflight(body: Mapping[str, Any]) -> bool:
    return "Bananas are yellow." in body["messages"][-1]["content"]


Respond = Callable[[dict[str, Any], int], "dict[str, Any] | Fault"]


class Loopback:
    """`respond(body, n)` gives the answer to the n-th arrival (from 0) of a body; use as a context manager."""

    def __init__(self, respond: Respond, *, delay: float = 0.0, port: int = 0) -> None:
        self.respond, self.delay = respond, delay
        self.lock = threading.Lock()
        self.arrivals: list[tuple[float, str]] = []  # time, key
        self.seen: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        """Good answers that the server finished making, by request: what was bought."""
        self.tokens: list[tuple[float, int]] = []
        self.preflights = 0
        self.in_flight = self.most_in_flight = 0
        self.headers: list[dict[str, str]] = []
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.batch_polls = 2
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                server._post(self)

            def do_GET(self) -> None:
                server._get(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:  # clients that were killed hang up
                pass

        self.http = Server(("127.0.0.1", port), Handler)
        self.port = self.http.server_address[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "Loopback":
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def bought_twice(self) -> int:
        return sum(count - 1 for count in self.answered.values())

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        with self.lock:
            self.headers.append(dict(handler.headers))
        if handler.path == "/v1/chat/completions":
            self._chat(handler, json.loads(raw), handler.headers["Idempotency-Key"])
        elif handler.path == "/v1/files":
            message = email.message_from_bytes(
                b"Content-Type: " + handler.headers["Content-Type"].encode() + b"\r\n\r\n" + raw,
                policy=email.policy.HTTP,
            )
            part = next(p for p in message.iter_parts() if p.get_filename())
            name = f"file-{len(self.files)}"
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            self.files[name] = content
            _send(
                handler,
                200,
                {
                    "id": name,
                    "object": "file",
                    "bytes": 1,
                    "created_at": 0,
                    "filename": "f",
                    "purpose": "batch",
                    "status": "processed",
                },
            )
        elif handler.path == "/v1/batches":
            asked = json.loads(raw)
            name = f"batch-{len(self.batches)}"
            self.batches[name] = {
                "id": name, "object": "batch", "endpoint": asked["endpoint"], "input_file_id": asked["input_file_id"],
                "completion_window": "24h", "status": "in_progress", "created_at": 0, "metadata": asked["metadata"],
                "polls": 0,
            }  # fmt: skip
            _send(handler, 200, self.batches[name])
        else:
            _send(handler, 404, {"error": {"message": "no such path"}})

    def _chat(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], key: str) -> None:
        now = time.monotonic()
        with self.lock:
            self.arrivals.append((now, key))
            self.preflights += is_preflight(body)
            n, self.seen[digest(body)] = self.seen[digest(body)], self.seen[digest(body)] + 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.delay:
                time.sleep(self.delay)
            answer = self.respond(body, n)
            if not isinstance(answer, Fault) or answer.kind in ("reset_after", "torn"):
                with self.lock:
                    if not is_preflight(body):
                        self.answered[key] += 1
                    if isinstance(answer, dict):
                        self.tokens.append((now, (answer.get("usage") or {}).get("total_tokens", 0)))
            if isinstance(answer, Fault):
                _fail(handler, answer)
            else:
                _send(handler, 200, answer)
        finally:
            with self.lock:
                self.in_flight -= 1

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.split("?")[0]
        if path == "/v1/batches":
            for batch in self.batches.values():
                batch["polls"] += 1
                if batch["polls"] >= self.batch_polls and batch["status"] == "in_progress":
                    self._complete(batch)
            _send(handler, 200, {"object": "list", "data": list(self.batches.values()), "has_more": False})
        elif path.startswith("/v1/files/") and path.endswith("/content"):
            _send(handler, 200, self.files[path.split("/")[3]])
        else:
            _send(handler, 404, {"error": {"message": "no such path"}})

    def _complete(self, batch: dict[str, Any]) -> None:
        good, bad = [], []
        for line in self.files[batch["input_file_id"]].splitlines():
            entry = json.loads(line)
            same = digest(entry["body"])
            n, self.seen[same] = self.seen[same], self.seen[same] + 1
            answer = self.respond(entry["body"], n)
            if isinstance(answer, Fault):
                response = {"status_code": answer.status, "body": answer.body or {"error": {"message": "no"}}}
                bad.append({"custom_id": entry["custom_id"], "response": response, "error": None})
            else:
                self.answered[entry["custom_id"]] += 1
                made = {"status_code": 200, "body": answer}
                good.append({"custom_id": entry["custom_id"], "response": made, "error": None})
        good.reverse()  # the order of the answers is the server's own
        for field_name, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                name = f"file-{len(self.files)}"
                self.files[name] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
                batch[field_name] = name
        batch["status"] = "completed"


def _send(handler: BaseHTTPRequestHandler, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def _fail(handler: BaseHTTPRequestHandler, fault: Fault) -> None:
    if fault.kind == "status":
        _send(handler, fault.status, fault.body or {"error": {"message": "try again"}}, fault.headers)
    elif fault.kind == "raw":
        _send(handler, 200, fault.body)
    elif fault.kind == "torn":  # a whole HTTP answer whose JSON is not
        _send(handler, 200, json.dumps(completion()).encode()[:-25])
    elif fault.kind == "hang":
        time.sleep(float(fault.headers.get("seconds", "1")))
        handler.close_connection = True
    else:  # drop, reset_after: the connection breaks without an answer, for the second after one was made
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True


def most_in_window(
    times: list[tuple[float, Any]], seconds: float, weigh: Callable[[Any], float] = lambda _: 1
) -> float:
    """The largest weight that arrived within any `seconds`."""
    events, most, start, total = sorted((t, weigh(x)) for t, x in times), 0.0, 0, 0.0
    for end, (moment, weight) in enumerate(events):
        total += weight
        while events[start][0] <= moment - seconds:
            total -= events[start][1]
            start += 1
        most = max(most, total)
        assert end >= start
    return most
