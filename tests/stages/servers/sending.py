"""Requests and clients that do not wait, for tests against a loopback server."""

import time
from pathlib import Path
from typing import Any

from stages.servers.client import Client
from stages.servers.ledger import Ledger
from stages.servers.limits import Limits
from stages.servers.request import Request
from stages.servers.request_cache import RequestCache
from stages.servers.traffic import Traffic
from stages.servers.wire import Wire
from tests.stages.servers.loopback import completion


def requests(base_url: str, n: int) -> list[Request]:
    return [
        Request(base_url, {"model": "m", "messages": [{"role": "user", "content": f"{i}"}], "max_tokens": 1})
        for i in range(n)
    ]


def client(base_url: str, folder: Path, limits: Limits | None = None, **traffic: Any) -> Client:
    wire = Wire(base_url, None, traffic.pop("timeout", 5.0))
    return Client(wire, RequestCache(folder), quick(**traffic), limits=limits or Limits())


def ok(body: dict[str, Any], n: int) -> dict[str, Any]:
    return completion("fine")


def nothing(done: int) -> None:
    pass


def quick(**changes: Any) -> Traffic:
    """Traffic that does not wait long."""
    return Traffic(**({"concurrency": 8, "timeout": 5.0, "longest_wait": 0.05} | changes))


def fetch(base_url: str, folder: str, n: int) -> None:
    """Run by a child: buys the answers to n requests."""
    client(base_url, Path(folder), concurrency=4).fetch(requests(base_url, n), nothing)


def hold(folder: str, account: str, dollars: float) -> None:
    """Run by a child: sets dollars aside and lives on."""
    Ledger(Path(folder), account, 1.0).hold("a", dollars)
    time.sleep(60)
