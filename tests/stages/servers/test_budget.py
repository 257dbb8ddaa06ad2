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
