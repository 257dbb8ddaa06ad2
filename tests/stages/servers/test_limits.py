"""Requests and tokens a minute, dollars: arithmetic on a clock held by the test."""

import pytest

from stages.servers.limits import Limits


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
