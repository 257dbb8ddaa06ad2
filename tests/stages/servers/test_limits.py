"""Requests and tokens a minute, dollars: arithmetic on a clock held by the test."""

import threading
import time

import pytest

from stages.errors import BadInput
from stages.judge.asking.cost import expected_cost
from stages.servers.budget import Budget, BudgetReached, worst_prompt_tokens
from stages.servers.limits import Limits
from stages.servers.prices import Price, price_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def waits(limits: Limits, clock: Clock, tokens: int = 1) -> float:
    """Seconds on the clock until the next request may leave."""
    start = clock.now
    while limits._wait(tokens) > 0:
        clock.now += 0.25
    limits.acquire(tokens)
    return clock.now - start


def test_the_next_minutes_requests_wait_for_it() -> None:
    clock = Clock()
    limits = Limits(rpm=3, clock=clock)
    assert [waits(limits, clock) for _ in range(3)] == [0, 0, 0]
    assert waits(limits, clock) == pytest.approx(63)  # 60 s and 5 % for what travels
    assert waits(limits, clock) == 0


def test_tokens_count_at_their_worst_until_they_are_known() -> None:
    clock = Clock()
    limits = Limits(tpm=1000, clock=clock)
    ticket = limits.acquire(900)
    assert limits._wait(200) > 0
    limits.settle(ticket, 100)
    assert limits._wait(200) <= 0
    assert limits._wait(901) > 0
    clock.now = 64.0
    assert limits._wait(5000) <= 0  # larger than the window: alone in it


def test_a_pause_holds_for_everybody() -> None:
    clock = Clock()
    limits = Limits(clock=clock)
    limits.pause(10)
    assert waits(limits, clock) == 10


def test_a_worst_case_waits_for_what_is_in_flight_and_then_stops() -> None:
    budget = Budget(1.0)
    budget.reserve("a", 0.6)
    threading.Timer(0.2, budget.settle, ("a", 0.1)).start()
    start = time.monotonic()
    budget.reserve("b", 0.6)  # 0.1 spent + 0.6 fits
    assert time.monotonic() - start > 0.1
    budget.settle("b", 0.6)
    with pytest.raises(BudgetReached) as stopped:
        budget.reserve("c", 0.6)
    assert stopped.value.exit_code == 3
    assert "$0.7000 of $1.0000 is spent" in stopped.value.problem
    budget.reserve("d", 0.3)


def test_a_worst_case_is_never_less_than_any_tokeniser_counts() -> None:
    assert worst_prompt_tokens([{"role": "user", "content": "äöü日本"}]) >= 12  # 3 · 2 + 2 · 3 bytes


def test_unknown_prices_are_said_to_be_unknown() -> None:
    table = {"as_of": "2026-01", "models": {"known": {"input": 1.0, "output": 2.0, "batch": 0.5}}}
    assert price_of("known-2", table) is None  # no guessing from a prefix
    assert price_of("known", None) is None
    assert price_of("known", table) == Price(1.0, 2.0, 0.5)
    unknown = expected_cost({"model": "known-2", "prices": table, "max_tokens": 1}, items=10)
    assert (unknown.requests, unknown.dollars) == (20, None)
    assert "no price is known for known-2" in unknown.note
    with pytest.raises(BadInput, match=r"prices\.models\.known"):
        price_of("known", {"models": {"known": {"input": -1.0, "output": 2.0}}})


def test_an_estimate_by_hand() -> None:
    table = {"as_of": "2026-01", "models": {"known": {"input": 1.0, "output": 2.0, "batch": 0.5}}}
    judge = {"model": "known", "prices": table, "max_tokens": 100, "runtime": {"batch": True}}
    found = expected_cost(
        judge, items=90, canary=10, order="both",
        instruction_characters=400, output_characters=1050,
    )  # fmt: skip
    assert found.requests == 200  # (90 + 10) · 2
    assert found.prompt_tokens == 200_000  # 200 · (400 + 2·1050 + 1500) / 4
    assert found.completion_tokens == 20_000
    assert found.dollars == pytest.approx(0.12)  # half of 0.2 · $1 + 0.02 · $2
    assert expected_cost({"name": "reward"}, items=90).dollars == 0
