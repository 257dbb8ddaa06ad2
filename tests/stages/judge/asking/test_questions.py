"""Questions are asked in every order, and again where an answer holds no verdict."""

from pathlib import Path
from typing import Any

import pytest

from stages.judge.asking.questions import Asking, Unreachable
from stages.judge.verdicts.pair_judge import Session
from stages.judge.verdicts.pairs import Pair
from stages.records import Prompt
from tests.stages.judge.judging import api_judge, longer_wins, shown, write_methods
from tests.stages.servers.loopback import Fault, Loopback, completion
from tests.stages.servers.sending import quick


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (completion(None, refusal="I will not."), "refusal"),
        (completion(None, finish="content_filter"), "filtered"),
        (completion("m", logprobs={"The": -0.1, "A": -3.0}), "no_preference"),
        (completion("m"), "missing_logprobs"),
        (completion("m", logprobs={"m": -0.1}, model="another-model"), "wrong_model"),
        ({**completion(), "choices": []}, "empty"),
        (Fault("status", 400, body={"error": {"message": "too many tokens"}}), "bad_request"),
    ],
)
def test_what_holds_no_verdict_is_asked_again_then_counted(
    tmp_path: Path, run_stage, answer: Any, outcome: str
) -> None:
    def respond(body: dict[str, Any], n: int) -> Any:
        return answer if "thorny" in shown(body) else longer_wins(body, n)

    payloads = write_methods(tmp_path, ["fine", "thorny", "good"], ["x", "y", "z"])
    with Loopback(respond) as server:
        verdicts, metrics = run_stage(payloads, {"main": api_judge(server.base_url)})
        failed = [v for v in verdicts if v.prompt_id == "p0001"]
        assert [(v.outcome, v.preference) for v in failed] == [(outcome, None)] * 2
        assert {v.asked for v in failed} == ({1} if outcome == "bad_request" else {3})
        assert all(v.problem and "\n" not in v.problem for v in failed)
        assert {v.outcome for v in verdicts if v.prompt_id != "p0001"} == {"verdict"}
        assert metrics["failures"] == metrics[f"failures/{outcome}"] == 2
        # 0.9 twice, and the third prompt lost or won.
        assert metrics["win_rate_low"] == pytest.approx(60)
        assert metrics["win_rate_high"] == pytest.approx(100 * 2.8 / 3)
        run_stage(payloads, {"main": api_judge(server.base_url)})
        assert server.bought_twice == 0


def test_a_verdict_on_the_second_asking_counts(tmp_path: Path, run_stage) -> None:
    def respond(body: dict[str, Any], n: int) -> Any:
        return completion(None, refusal="no") if n == 0 and "b" in shown(body) else longer_wins(body, n)

    payloads = write_methods(tmp_path, ["long a", "b"], ["x", "longer"])
    with Loopback(respond) as server:
        verdicts, _ = run_stage(payloads, {"main": api_judge(server.base_url)}, order="as_is")
    assert [(v.asked, v.outcome) for v in verdicts] == [(1, "verdict"), (2, "verdict")]
    assert verdicts[1].prompt_tokens == 200  # both askings are paid for
    assert verdicts[1].cost == pytest.approx(2 * 1030e-6)


def session(folder: Path) -> Session:
    return Session(folder / "requests")


def pair(candidate: str, reference: str, name: str = "p0") -> Pair:
    return Pair(Prompt(id=name, part="test", text="Why?"), "Why?", 0, candidate, reference, "vas", "base")


def test_both_responses_are_shown_in_both_orders(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def respond(body: dict[str, Any], n: int) -> Any:
        seen.append(shown(body))
        return longer_wins(body, n)

    with Loopback(respond) as server:
        found = Asking(api_judge(server.base_url), session(tmp_path)).decide([pair("mine", "theirs")], "both")
    assert sorted(seen[1:]) == [("mine", "theirs"), ("theirs", "mine")]  # the first one was the preflight
    assert [v.order for v in found] == ["reference_first", "candidate_first"]


def test_what_needs_no_question_reaches_no_server(tmp_path: Path) -> None:
    judge = api_judge("http://127.0.0.1:9/v1", max_output_chars=5)
    found = Asking(judge, session(tmp_path)).decide([pair("same", "same"), pair("too long", "x", "p1")], "as_is")
    assert [(v.outcome, v.preference, v.asked) for v in found] == [("identical", 1.5, 0), ("too_long", None, 0)]
    assert found[1].problem == "the candidate's response has 8 characters; max_output_chars=5"


def test_every_asking_is_a_request_of_its_own(tmp_path: Path) -> None:
    with Loopback(lambda body, n: longer_wins(body, n) if "Bananas" in str(body) else completion("m")) as server:
        given = session(tmp_path)
        (found,) = Asking(api_judge(server.base_url, asks=2), given).decide([pair("mine", "theirs")], "as_is")
    assert (found.outcome, found.asked) == ("missing_logprobs", 2)
    assert len(server.answered) == 2  # by two keys, so that the second answer is not the recorded first
    assert found.prompt_tokens == 200
    assert (given.figures["asked"], given.figures["bought"]) == (2, 3)  # and the preflight


def test_too_many_questions_without_an_answer_end_the_run(tmp_path: Path) -> None:
    with Loopback(lambda body, n: longer_wins(body, n) if "Bananas" in str(body) else Fault("status", 500)) as server:
        judge = api_judge(server.base_url, runtime=quick(attempts=1), max_unreachable=0.5)
        with pytest.raises(Unreachable, match=r"base_url: 1 of 1 questions got no answer \(the first: 1 attempts"):
            Asking(judge, session(tmp_path)).decide([pair("mine", "theirs")], "as_is")
        judge.max_unreachable = 1.0
        (found,) = Asking(judge, session(tmp_path)).decide([pair("mine", "theirs")], "as_is")
    assert found.outcome == "unreachable"
