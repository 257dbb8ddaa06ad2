"""One account for a whole run: kept by threads, processes and after kills."""

import random
import threading
import time
from pathlib import Path

import pytest

from stages.servers.budget import Budget, BudgetReached
from stages.servers.ledger import Ledger
from tests.stages.servers.children import Nursery
from tests.stages.servers.sending import hold


def test_what_one_process_holds_the_other_cannot_spend(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path, "study", 1.0), Ledger(tmp_path, "study", 1.0)
    assert one.hold("a", 0.7)
    assert not other.hold("b", 0.4)  # 0.7 + 0.4 > 1
    one.settle("a", 0.2)
    assert other.hold("b", 0.4)
    assert not one.fits(0.5)  # 0.2 + 0.4 + 0.5 > 1
    assert one.spent == pytest.approx(0.6)
    assert Ledger(tmp_path, "another study", 1.0).hold("c", 1.0)  # an account of its own


def test_what_a_killed_process_had_open_stays_at_its_worst_and_nobody_waits_for_it(tmp_path: Path) -> None:
    with Nursery("tests.stages.servers.sending") as nursery:
        child = nursery.start(hold, folder=str(tmp_path), account="study", dollars=0.7)
        ledger = Ledger(tmp_path, "study", 1.0)
        deadline = time.monotonic() + 30
        while ledger.fits(0.4):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert ledger.busy()  # it may turn out cheaper
        nursery.kill(child)
    assert not ledger.busy()
    assert ledger.spent == pytest.approx(0.7)  # it may have been bought
    with pytest.raises(BudgetReached) as stopped:
        Budget(None, ledger).reserve("b", 0.4)
    assert stopped.value.exit_code == 3
    assert str(stopped.value) == (
        "runtime.max_cost_run: $0.7000 of $1.0000 is spent by all judges of runs named 'study' and the next request "
        "may cost $0.4000; every answer so far is recorded: raise this limit and run again, and it goes on from here"
    )


def test_a_judge_waits_while_another_process_may_turn_out_cheaper(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path, "study", 1.0), Ledger(tmp_path, "study", 1.0)
    assert one.hold("a", 0.7)
    threading.Timer(0.3, one.settle, ("a", 0.1)).start()
    start = time.monotonic()
    Budget(None, other).reserve("b", 0.8)
    assert time.monotonic() - start > 0.2


def test_a_run_that_stops_waits_for_nobody(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path, "study", 1.0), Ledger(tmp_path, "study", 1.0)
    assert one.hold("a", 1.0)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    Budget(None, other, stop.is_set).reserve("b", 0.5)
    assert other.spent == 1.0  # b was not set aside


def test_a_batch_that_two_processes_wait_for_counts_once(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path, "study", 5.0), Ledger(tmp_path, "study", 5.0)
    assert one.hold("batch", 1.0)
    assert one.hold("batch", 2.5)  # one request after the other joins it
    one.close()
    budget = Budget(None, other)
    budget.commit("batch", 2.5)
    assert other.spent == pytest.approx(2.5)
    budget.settle("batch", 0.9)
    other.settle("batch", 0.4)  # by somebody who did not collect all of it
    assert Ledger(tmp_path, "study", 5.0).fits(4.1)
    assert not Ledger(tmp_path, "study", 5.0).fits(4.11)


def test_a_line_torn_by_a_kill_is_no_spending_and_hides_none(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "study", 1.0)
    ledger.hold("a", 0.25)
    ledger.close()
    (path,) = ledger.folder.glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"name": "b", "hel')
    again = Ledger(tmp_path, "study", 1.0)
    assert again.fits(0.75)
    assert not again.fits(0.76)


@pytest.mark.parametrize("seed", range(3))
def test_however_many_spend_at_once_the_ceiling_holds(tmp_path: Path, monkeypatch, seed: int) -> None:
    # Time passes between the look and the line, so that two who look at once would both find room.
    room = Ledger._room
    monkeypatch.setattr(Ledger, "_room", lambda self, dollars: (room(self, dollars), time.sleep(0.002))[0])
    # 4 judges, 3 threads each, worst cases of 0.1 that turn out to cost 0.02 … 0.1; a ceiling of 2.
    refused = []

    def spend(budget: Budget, draw: random.Random, who: str) -> None:
        for number in range(40):
            try:
                budget.reserve(f"{who}-{number}", 0.1)
            except BudgetReached:
                refused.append(who)
                return
            time.sleep(0.0005 * draw.random())
            budget.settle(f"{who}-{number}", draw.uniform(0.02, 0.1))

    ledgers = [Ledger(tmp_path, "study", 2.0) for _ in range(4)]
    threads = [
        threading.Thread(target=spend, args=(budget, random.Random(100 * seed + 10 * i + j), f"{i}-{j}"))
        for i, budget in enumerate([Budget(None, ledger) for ledger in ledgers])
        for j in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Ledger(tmp_path, "study", None)
    total.fits(0.0)
    assert len(refused) == 12  # 480 sendings of 0.06 on average would be 29
    assert 1.9 < total.spent <= 2.0
