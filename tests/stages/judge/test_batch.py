"""The Batch API: answers into the same record, found again after a kill, priced at their discount."""

from pathlib import Path
from typing import Any

import pytest
from judging import api_judge, longer_wins, quick, shown, write_methods
from loopback import Fault, Loopback, completion

from stages.errors import BadInput


def batching(base_url: str, **traffic: Any) -> Any:
    return api_judge(base_url, runtime=quick(batch=True, poll=0.05, **traffic))


def test_a_batch_answers_every_question_at_half_the_price(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, [f"candidate {i}" for i in range(20)], ["x"] * 20)
    with Loopback(longer_wins) as server:
        verdicts, metrics = run_stage(payloads, {"main": batching(server.base_url)})
        assert len(server.batches) == 1
        assert len(server.arrivals) == server.preflights == 1
        # The same questions one by one: they are recorded already, whichever way they came.
        again, _ = run_stage(payloads, {"main": api_judge(server.base_url)})
        assert len(server.arrivals) == 1
    assert [v.preference for v in verdicts] == pytest.approx([1.9] * 40)
    assert metrics["cost"] == pytest.approx(40 * 1030e-6 / 2)
    assert [v.preference for v in again] == [v.preference for v in verdicts]


def test_refused_and_unanswered_requests_of_a_batch(tmp_path: Path, run_stage) -> None:
    def respond(body: dict[str, Any], n: int) -> Any:
        if "odd" in shown(body):
            return Fault("status", 400, body={"error": {"message": "too odd"}})
        if "late" in shown(body) and n == 0:
            return Fault("status", 500)
        if "lost" in shown(body):
            return Fault("status", 500)
        if "shy" in shown(body) and n == 0:
            return completion(None, refusal="no")
        return longer_wins(body, n)

    payloads = write_methods(tmp_path, ["odd", "late", "lost", "shy", "good"], ["x"] * 5)
    with Loopback(respond) as server:
        judge = batching(server.base_url)
        judge.max_unreachable = 0.5
        verdicts, _ = run_stage(payloads, {"main": judge}, order="as_is")
    assert [v.outcome for v in verdicts] == ["bad_request", "verdict", "unreachable", "verdict", "verdict"]
    assert [v.asked for v in verdicts] == [1, 1, 1, 2, 1]
    assert server.bought_twice == 0


def test_a_run_that_dies_while_a_batch_is_out_waits_for_it_and_hands_nothing_over_again(
    tmp_path: Path, run_stage
) -> None:
    payloads = write_methods(tmp_path, [f"candidate {i}" for i in range(8)], ["x"] * 8)
    with Loopback(longer_wins) as server:
        server.batch_polls = 10**9
        judge = batching(server.base_url)

        class Killed(BaseException):
            pass

        def dies(done: int, total: int, note: str = "") -> None:
            if server.batches:
                raise Killed

        from stages.runtime import Runtime

        runtime = Runtime(progress=dies)
        runtime.requests = tmp_path / "requests"  # type: ignore[attr-defined]
        with pytest.raises(Killed):
            run_stage(payloads, {"main": judge}, runtime=runtime)
        server.batch_polls = 0
        verdicts, metrics = run_stage(payloads, {"main": judge})
        assert len(server.batches) == 1
        assert server.bought_twice == 0
    assert {v.outcome for v in verdicts} == {"verdict"}
    assert metrics["requests/bought"] >= 16


def test_a_batch_that_would_cost_too_much_is_made_smaller_or_refused(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, [f"candidate {i}" for i in range(30)], ["x"] * 30)
    with Loopback(longer_wins) as server:
        with pytest.raises(BadInput) as stopped:
            run_stage(payloads, {"main": batching(server.base_url, max_cost=0.017)}, order="as_is")
        assert stopped.value.field == "judges.main.runtime.max_cost"
        spent = len(server.answered) * 1030e-6 / 2
        assert 0 < spent < 0.017
        verdicts, _ = run_stage(payloads, {"main": batching(server.base_url, max_cost=1.0)}, order="as_is")
        assert server.bought_twice == 0
    assert {v.outcome for v in verdicts} == {"verdict"}


def test_a_server_without_batches_says_so_in_one_line(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["a"], ["bb"])
    with Loopback(longer_wins) as server:
        server.http.RequestHandlerClass.do_GET = lambda self: self.send_error(400)  # type: ignore[attr-defined,method-assign]
        with pytest.raises(BadInput, match=r"judges\.main\.runtime\.batch: .*set batch=false") as refused:
            run_stage(payloads, {"main": batching(server.base_url)})
    assert "\n" not in str(refused.value)
