"""Sends many requests to one server. All retries, rate limits, spending limits and recording are here and only here."""

import queue
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from stages.servers.budget import Budget, worst_prompt_tokens
from stages.servers.limits import Limits
from stages.servers.prices import Price
from stages.servers.request import Reply, Request
from stages.servers.request_cache import RequestCache
from stages.servers.traffic import Traffic
from stages.servers.wire import Unanswered, Wire, token_limit, used_tokens


@dataclass
class Client:
    """One server and one record of its answers; many threads may use it."""

    wire: Wire
    cache: RequestCache
    traffic: Traffic
    price: Price | None = None
    budget: Budget = field(default_factory=lambda: Budget(None))
    limits: Limits = field(default_factory=Limits)
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    bought: int = 0
    """Answers that came over the network in this run."""
    _counted: set[str] = field(default_factory=set, repr=False)
    """Keys of the requests whose earlier cost is in the budget already."""
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _count: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.cache.redact = self.wire.redact
        self.budget.stopped = self._stop.is_set

    def fetch(self, requests: Sequence[Request], progress: Callable[[int], None]) -> dict[str, Reply]:
        """A reply to every request, by key. Several threads ask; `progress(done)` is called at least once a second.

        Raises BadInput where no request can succeed (key, model, address), SpendingStopped where no more may be spent.
        The answers in flight at that moment are still waited for and recorded.
        """
        todo = {request.key: request for request in requests}
        replies = self.recorded(list(todo.values()))
        todo = {key: request for key, request in todo.items() if key not in replies}
        if not todo:
            return replies
        _ = self.wire.sdk  # a missing key shows before any thread starts
        self._stop.clear()
        done: queue.SimpleQueue[Future[Reply]] = queue.SimpleQueue()
        with ThreadPoolExecutor(self.traffic.concurrency, thread_name_prefix="client") as threads:
            for request in todo.values():
                threads.submit(self.ask, request).add_done_callback(done.put)
            try:
                for left in range(len(todo), 0, -1):
                    while (finished := _next(done)) is None:
                        progress(len(requests) - left)
                    reply = finished.result()
                    replies[reply.key] = reply
                    progress(len(requests) - left + 1)
            except BaseException:
                self._stop.set()
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        return replies

    def recorded(self, requests: Sequence[Request]) -> dict[str, Reply]:
        """The replies that are recorded, by key. Their cost, and that of lost answers, is added to the budget once."""
        self.cache.refresh()
        replies = {}
        for request in requests:
            spent = self.cache.unanswered(request.key) * self.worst_cost(request)
            if (response := self.cache.get(request.key)) is not None:
                spent += self.cost(request.key, response, self.worst_cost(request))
                replies[request.key] = Reply(request.key, response)
            if request.key not in self._counted:
                self._counted.add(request.key)
                self.budget.add(spent)
        return replies

    def ask(self, request: Request) -> Reply:
        """The recorded answer, or a new one. No two threads or processes ask the same question at the same time."""
        with self.cache.claimed(request.key):
            if (recorded := self.cache.get(request.key)) is not None:
                return Reply(request.key, recorded)
            return self.buy(request)

    def buy(self, request: Request, attempts: int | None = None) -> Reply:
        """Sends until an answer is recorded, the item is refused or the attempts are used up."""
        most, problem = attempts or self.traffic.attempts, ""
        tokens = worst_prompt_tokens(request.body["messages"]) + token_limit(request.body)
        worst = self.worst_cost(request)
        for attempt in range(1, most + 1):
            sending = f"{request.key}:{secrets.token_hex(4)}"
            self.budget.reserve(sending, worst)
            ticket = self.limits.acquire(tokens, self._stop.is_set)
            if self._stop.is_set():
                self.budget.settle(sending, 0.0)
                return Reply(request.key, failure="unreachable", problem="the run was stopped")
            try:
                self.cache.intend(
                    request.key, {"endpoint": request.endpoint, "body": request.body, "sample": request.sample}
                )
                response = self.wire.send(request)
                self.cache.record(request.key, response)
            except Unanswered as error:
                self.budget.settle(sending, worst if error.billed else 0.0)
                if not error.billed:
                    self.limits.settle(ticket, 0)
                (self.cache.lose if error.billed else self.cache.refused)(request.key, error.problem)
                if not error.retry:
                    return Reply(request.key, None, "bad_request", error.problem, error.parameter)
                problem = error.problem
                if attempt < most:
                    self.wait(error.wait, attempt)
            except BaseException:
                self.budget.settle(sending, 0.0)
                raise
            else:
                used = used_tokens(response)
                self.limits.settle(ticket, sum(used) or tokens)
                self.budget.settle(sending, self.cost(request.key, response, worst))
                with self._count:
                    self.bought += 1
                return Reply(request.key, response)
        return Reply(request.key, failure="unreachable", problem=f"{most} attempts; the last: {problem}")

    def wait(self, asked: float | None, attempt: int) -> None:
        """Waits before the next attempt: `asked` seconds where the server asked for that, which then holds for all
        threads, else exponentially longer with every attempt, by chance shorter."""
        if asked is not None:
            self.limits.pause(asked)
            seconds = asked + 0.05 * self.jitter()
        else:
            seconds = min(self.traffic.longest_wait, 0.5 * 2 ** (attempt - 1)) * (0.1 + 0.9 * self.jitter())
        while seconds > 0 and not self._stop.is_set():
            self.sleep(min(seconds, 0.5))
            seconds -= 0.5

    def worst_cost(self, request: Request, *, batch: bool = False) -> float:
        """The most dollars that the request can cost; 0 where no price is known."""
        if self.price is None:
            return 0.0
        return self.price.of(worst_prompt_tokens(request.body["messages"]), token_limit(request.body), batch=batch)

    def cost(self, key: str, response: Mapping[str, Any], otherwise: float = 0.0) -> float:
        """Dollars of a recorded answer by the server's own count of tokens; `otherwise` where it gave none."""
        if self.price is None:
            return 0.0
        prompt, completion = used_tokens(response)
        return self.price.of(prompt, completion, batch=self.cache.batched(key)) if prompt + completion else otherwise


def _next(done: "queue.SimpleQueue[Future[Reply]]") -> Future[Reply] | None:
    try:
        return done.get(timeout=0.5)
    except queue.Empty:
        return None
