"""A server that fails in every way, and runs that are killed: every verdict arrives or is a counted, typed failure, and
no recorded answer is bought again.
"""

import hashlib
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stages import records
from stages.errors import BadInput
from stages.records import Verdict
from stages.servers.ledger import Ledger
from stages.servers.request_cache import RequestCache
from tests.stages.judge.judging import api_judge, judge_all, longer_wins, shown, write_methods
from tests.stages.servers.children import Nursery
from tests.stages.servers.loopback import Fault, Loopback, completion, is_preflight
from tests.stages.servers.sending import quick

PASSING = [
    Fault("status", 429), Fault("status", 429, headers={"Retry-After": "0.02"}), Fault("status", 500),
    Fault("status", 503), Fault("status", 408), Fault("drop"), Fault("reset_after"), Fault("torn"),
    Fault("hang", headers={"seconds": "0.3"}),
]  # fmt: skip
"""Gone at the next try."""
EMPTY_HANDED = {
    "refusal": completion(None, refusal="I cannot compare these."),
    "filtered": completion(None, finish="content_filter"),
    "empty": {**completion(), "choices": []},
    "missing_logprobs": completion("m"),
    "wrong_model": completion("m", logprobs={"m": -0.1, "M": -3.0}, model="cheaper-model"),
    "no_preference": completion("The", logprobs={"The": -0.1, "I": -3.0}),
}
"""Answers that come, are billed and hold no verdict."""


def number(body: dict[str, Any]) -> int:
    return int(hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:8], 16)


def faulty(body: dict[str, Any], n: int) -> Any:
    """Deterministic in the request and in how often it came: 30 % of requests meet up to two passing faults, 2 % answer
    without a verdict at first, 1.5 % always; 0.2 % are refused as bad, 0.2 % never get through."""
    if is_preflight(body):
        return longer_wins(body, n)
    draw = random.Random(number(body))
    kind, faults = draw.random(), draw.randint(1, 2) if draw.random() < 0.3 else 0
    if kind < 0.002:
        return Fault("status", 400, body={"error": {"message": "this item is too odd"}})
    if kind < 0.004:
        return Fault("status", 500)
    if n < faults:
        return draw.choice(PASSING)
    if kind < 0.019:
        return draw.choice(list(EMPTY_HANDED.values()))
    if kind < 0.039 and n == faults:
        return draw.choice(list(EMPTY_HANDED.values()))
    return longer_wins(body, n)


def expected_outcome(body: dict[str, Any]) -> str:
    draw = random.Random(number(body))
    kind, _ = draw.random(), draw.randint(1, 2) if draw.random() < 0.3 else 0
    return (
        "bad_request"
        if kind < 0.002
        else "unreachable"
        if kind < 0.004
        else "empty-handed"
        if kind < 0.019
        else "verdict"
    )


@pytest.mark.parametrize("n", [200, pytest.param(1000, marks=pytest.mark.assets)])
def test_many_prompts_in_both_orders_through_every_fault(tmp_path: Path, run_stage, n: int) -> None:
    payloads = write_methods(
        tmp_path, [f"candidate {i} " + "x" * (i % 7) for i in range(n)], [f"reference {i}" for i in range(n)]
    )
    expected: dict[str, str] = {}

    def respond(body: dict[str, Any], n: int) -> Any:
        if not is_preflight(body):
            expected[" | ".join(shown(body))] = expected_outcome(body)
        return faulty(body, n)

    with Loopback(respond) as server:
        judge = api_judge(server.base_url, runtime=quick(concurrency=16, timeout=0.25), max_unreachable=0.01)
        verdicts, metrics = run_stage(payloads, {"main": judge})
        lost = metrics["requests/maybe_bought_twice"]
        answered = sum(server.answered.values())

        # Every verdict is there: 1,000 prompts, two orders each, none twice.
        assert len({(v.prompt_id, v.order) for v in verdicts}) == len(verdicts) == 2 * n
        outcomes = Counter(v.outcome for v in verdicts)
        wanted = Counter(expected.values())
        assert (outcomes["verdict"], outcomes["bad_request"], outcomes["unreachable"]) == (
            wanted["verdict"], wanted["bad_request"], wanted["unreachable"],
        )  # fmt: skip
        assert sum(outcomes[name] for name in EMPTY_HANDED) == wanted["empty-handed"] > n / 100
        assert set(outcomes) <= {"verdict", "bad_request", "unreachable", *EMPTY_HANDED}
        assert metrics["failures"] == 2 * n - outcomes["verdict"]
        assert metrics["win_rate_low"] < metrics["win_rate"] < metrics["win_rate_high"]
        # What was bought twice is at most what was lost on the way, and the run says how much that was.
        assert 0 < server.bought_twice <= lost
        print(f"{dict(outcomes)}; {answered} answers bought, {server.bought_twice} of them twice, {lost:.0f} lost")

        # Again: only what was never answered is asked, and nothing recorded is bought.
        before = Counter(server.answered)
        again, _ = run_stage(payloads, {"main": judge})
        assert server.answered == before
        assert again == verdicts


def test_a_server_that_is_down_for_most_fails_the_run_and_keeps_the_rest(tmp_path: Path, run_stage) -> None:
    down = True

    def respond(body: dict[str, Any], n: int) -> Any:
        return Fault("status", 503) if down and number(body) % 2 and not is_preflight(body) else longer_wins(body, n)

    payloads = write_methods(tmp_path, [f"candidate {i}" for i in range(20)], ["x"] * 20)
    with Loopback(respond) as server:
        judge = api_judge(server.base_url, runtime=quick(attempts=2))
        with pytest.raises(BadInput, match=r"base_url: \d+ of 40 questions got no answer .*503.*run again"):
            run_stage(payloads, {"main": judge})
        assert 5 < len(server.answered) < 35
        down = False
        verdicts, _ = run_stage(payloads, {"main": judge})
        assert server.bought_twice == 0
    assert {v.outcome for v in verdicts} == {"verdict"}


def killed_runs(folder: Path, prompts: int, kills: int, seed: int) -> dict[str, int]:
    """Kills a judging process `kills` times at random moments, then lets it end; what server and record counted."""
    draw = random.Random(seed)
    texts = [f"candidate {i} " + "x" * (i % 7) for i in range(prompts)]
    write_methods(folder, texts, [f"reference {i}" for i in range(prompts)])
    early = 0

    def respond(body: dict[str, Any], n: int) -> Any:
        if is_preflight(body) or draw.random() > 0.03:
            return longer_wins(body, n)
        return Fault("status", 500) if draw.random() < 0.5 else Fault("reset_after")

    with Loopback(respond, delay=0.02) as server, Nursery("tests.stages.judge.judging") as nursery:
        places = {"base_url": server.base_url, "folder": str(folder)}
        portion = 2 * prompts // (kills + 1)  # answers until the next kill, on average
        for kill in range(kills):
            so_far, wanted = sum(server.answered.values()), draw.randint(0, 2 * portion - 2)
            child = nursery.start(judge_all, **places, out=str(folder / f"out{kill}"))
            deadline = time.monotonic() + 30
            while sum(server.answered.values()) < so_far + wanted and time.monotonic() < deadline:
                time.sleep(0.001)
                if len(server.answered) == 2 * prompts:
                    break
            time.sleep(0.02 * draw.random())
            early += nursery.kill(child) == 0
            time.sleep(0.05)  # what was on its way arrives, and is billed
        assert nursery.wait(nursery.start(judge_all, **places, out=str(folder / "last"))) == 0
        answered = Counter(server.answered)
        recorded = RequestCache(folder / "requests")
        verdicts = records.read(folder / "last" / "verdicts.parquet", Verdict)
        assert {v.outcome for v in verdicts} == {"verdict"}
        assert len({(v.prompt_id, v.order) for v in verdicts}) == len(verdicts) == 2 * prompts
        assert len(answered) == 2 * prompts
        assert all(key in recorded for key in answered)
        assert all(recorded.repeated(key) == 0 for key in answered)  # no recorded answer was bought again
        lost = sum(recorded.unanswered(key) for key in answered)
        assert nursery.wait(nursery.start(judge_all, **places, out=str(folder / "more"))) == 0
        assert server.answered == answered
    bought = sum(answered.values())
    # What the server billed (1,030 millionths of a dollar each) is never more than what the account says was spent.
    account = Ledger(folder / "requests", "kills", None)
    assert account.fits(0.0)
    assert account.spent >= (bought + server.preflights) * 1030e-6 - 1e-9
    return {
        "kills": kills,
        "too late": early,
        "bought": bought,
        "twice": server.bought_twice,
        "lost": lost,
    }


@pytest.mark.parametrize(("kills", "prompts"), [(3, 30), pytest.param(20, 150, marks=pytest.mark.assets)])
def test_kills_at_random_moments_lose_and_repeat_nothing(tmp_path: Path, kills: int, prompts: int) -> None:
    counted = killed_runs(tmp_path, prompts=prompts, kills=kills, seed=2)
    print(counted)
    assert counted["too late"] <= kills / 4
    # What was bought twice was in flight at a kill (at most 6 requests each) or dropped; the record knows how much.
    assert 0 < counted["twice"] <= counted["lost"] <= 6 * kills + 0.05 * counted["bought"]
