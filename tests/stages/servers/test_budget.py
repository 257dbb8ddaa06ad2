"""Dollars: the worst case is set aside before a request leaves."""

import threading
import time

import pytest

from stages.servers.budget import Budget, BudgetReached, worst_prompt_tokens


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


def test_what_was_set_aside_is_free_again_when_it_is_settled() -> None:
    budget = Budget(1.0)
    budget.reserve("a", 0.8)
    assert not budget.fits(0.3)  # 0.8 + 0.3 > 1
    budget.settle("a", 0.1)
    assert budget.fits(0.9)
    assert budget.spent == pytest.approx(0.1)
    budget.settle("a", 0.1)  # nothing is set aside under that name any more, but the dollars are counted
    assert budget.spent == pytest.approx(0.2)


def test_looking_ahead_sets_nothing_aside() -> None:
    budget = Budget(1.0)
    budget.require(0.9)
    assert (budget.spent, budget.fits(1.0)) == (0.0, True)
    with pytest.raises(BudgetReached):
        budget.require(1.1)


def test_without_a_ceiling_everything_fits_and_is_counted() -> None:
    budget = Budget(None)
    budget.commit("batch", 1e6)
    budget.add(2.5)
    assert budget.fits(1e9)
    budget.settle("batch", 4.0)
    assert budget.spent == 6.5


def test_whoever_gives_up_stops_waiting() -> None:
    stop = threading.Event()
    budget = Budget(1.0, stopped=stop.is_set)
    budget.reserve("a", 1.0)
    stop.set()
    budget.reserve("b", 1.0)  # returns at once, and holds nothing
    budget.settle("a", 0.0)
    assert budget.fits(1.0)
