"""The Batch API: answers into the same record, found again after a kill, priced at their discount."""

from pathlib import Path
from typing import Any

import pytest

from stages.errors import BadInput
from stages.servers.ledger import Ledger
from tests.stages.judge.judging import api_judge, longer_wins, shown, write_methods
from tests.stages.servers.loopback import Fault, Loopback, completion
from tests.stages.servers.sending import quick


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
        if "mute" in shown(body):
            return Fault("status", 400, body={"error": {"message": ""}})
        if "terse" in shown(body):
            return Fault("status", 400, body={"error": "too\nterse"})
        if "late" in shown(body) and n == 0:
            return Fault("status", 500)
        if "lost" in shown(body):
            return Fault("status", 500)
        if "shy" in shown(body) and n == 0:
            return completion(None, refusal="no")
        return longer_wins(body, n)

    payloads = write_methods(tmp_path, ["odd", "late", "lost", "shy", "good", "mute", "terse"], ["x"] * 7)
    with Loopback(respond) as server:
        judge = batching(server.base_url)
        judge.max_unreachable = 0.5
        verdicts, _ = run_stage(payloads, {"main": judge}, order="as_is")
    assert [v.outcome for v in verdicts[:5]] == ["bad_request", "verdict", "unreachable", "verdict", "verdict"]
    assert [v.asked for v in verdicts[:5]] == [1, 1, 1, 2, 1]
    refused = [v.problem for v in verdicts if v.outcome == "bad_request"]
    assert refused == ["400: too odd", "400: no reason given", "400: too"]
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


@pytest.mark.parametrize("status", [400, 404])
def test_a_server_without_batches_says_so_in_one_line(tmp_path: Path, run_stage, status: int) -> None:
    payloads = write_methods(tmp_path, ["a"], ["bb"])
    with Loopback(longer_wins) as server:
        server.http.RequestHandlerClass.do_GET = lambda self: self.send_error(status)  # type: ignore[attr-defined,method-assign]
        with pytest.raises(BadInput, match=r"judges\.main\.runtime\.batch: .*set batch=false") as refused:
            run_stage(payloads, {"main": batching(server.base_url)})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("when", ["while it is looked over", "as it is handed over"])
def test_a_batch_that_the_server_refuses_costs_nothing(tmp_path: Path, run_stage, when: str) -> None:
    payloads = write_methods(tmp_path, [f"candidate {i}" for i in range(20)], ["x"] * 20)

    def refuse(batch: dict[str, Any]) -> None:
        batch |= {"status": "failed", "errors": {"data": [{"message": "too many\nenqueued tokens", "code": "x"}]}}

    with Loopback(longer_wins) as server:
        if when == "as it is handed over":
            post = server._post

            def turned_down(handler: Any) -> None:
                if handler.path == "/v1/files":
                    handler.rfile.read(int(handler.headers["Content-Length"]))
                    handler.send_error(400)
                else:
                    post(handler)

            server._post = turned_down  # type: ignore[method-assign]
        server._complete = refuse  # type: ignore[method-assign]
        judge = batching(server.base_url, account="study", max_cost_run=1.0)
        with pytest.raises(BadInput, match=r"judges\.main\.runtime\.batch: ") as refused:
            run_stage(payloads, {"main": judge})
        assert "\n" not in str(refused.value)
        if when == "while it is looked over":
            assert refused.value.problem == "the server refused the batch: too many"
        account = Ledger(tmp_path / "requests", "study", 1.0)
        account.fits(0.0)
        assert account.spent == pytest.approx(1030e-6)  # the preflight alone; nothing is set aside any more
        # And the way out that the line names works: nothing waits for the batch, the money is there.
        verdicts, _ = run_stage(payloads, {"main": api_judge(server.base_url, runtime=quick(account="study"))})
        assert {v.outcome for v in verdicts} == {"verdict"}
        account.fits(0.0)
        assert account.spent == pytest.approx(42 * 1030e-6)  # a preflight each, 40 questions
