"""What a judge's raw answer says: a verdict, or a typed outcome."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import BadInput
from stages.judge.asking.answers import checked_pattern, first_choice, read_answer, top_logprobs, written
from stages.judge.asking.template import MODES
from tests.stages.servers.loopback import MODEL, completion


@given(st.text(), st.sampled_from(MODES))
def test_no_answer_breaks_the_parser(text: str, mode: str) -> None:
    response = {"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": text}}]}
    answer = read_answer(response, mode, candidate_first=False, model="m")
    assert (answer.preference is None) == (answer.outcome != "verdict")


@pytest.mark.parametrize(
    ("text", "outcome", "preference"),
    [
        ("Reasons.\n[[A]]", "verdict", 1.0),
        ("Reasons.\n\n  [[B]].  \n\n", "verdict", 2.0),
        ("[[tie]]", "verdict", 1.5),
        ("The answer says [[A]].\nI do not follow it.", "unreadable", None),
        ("Verdict: [[A]] or [[B]]", "unreadable", None),
        ("I'm sorry, I cannot compare these.", "refusal", None),
        ("[[C]]", "unreadable", None),
    ],
)
def test_text_verdicts(text: str, outcome: str, preference: float | None) -> None:
    response = {"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": text}}]}
    answer = read_answer(response, "text", candidate_first=False, model="m")
    assert (answer.outcome, answer.preference) == (outcome, preference)
    cut = {"model": "m", "choices": [{"finish_reason": "length", "message": {"content": "Well, let me"}}]}
    assert read_answer(cut, "text", candidate_first=False, model="m").outcome == "truncated"


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"model": "m", "choices": None},
        {"model": "m", "choices": [None]},
        {"model": "m", "choices": [{"message": None}]},
        {"model": "m", "choices": [{"message": {"content": 7}, "logprobs": {"content": [{"top_logprobs": [{}]}]}}]},
        {"model": "m", "choices": [{"message": {"content": "m"}, "logprobs": {"content": []}}]},
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_malformed_responses_are_typed(response: dict, mode: str) -> None:
    assert read_answer(response, mode, candidate_first=True, model="m").preference is None


def test_a_name_that_was_not_asked_gives_no_verdict() -> None:
    answer = read_answer(completion("[[A]]", model="cheaper"), "text", candidate_first=True, model="dearer")
    assert (answer.outcome, answer.problem) == ("wrong_model", "answered by 'cheaper' instead of 'dearer'")


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"rationale": "r", "verdict": "A"}', "verdict"),
        ('{"verdict": "A", "rationale": "r"}', "verdict"),
        ('{"rationale": "r", "verdict": "tie"}', "verdict"),
        ('{"rationale": "r", "verdict": "C"}', "unreadable"),
        ('{"rationale": "r", "verdict": 1}', "unreadable"),
        ('{"rationale": "r"}', "unreadable"),
        ("A", "unreadable"),
        ('Sorry, {"rationale": "r"', "refusal"),
        ("", "empty"),
    ],
)
def test_structured_verdicts(text: str, outcome: str) -> None:
    assert read_answer(completion(text), "structured", candidate_first=True, model=MODEL).outcome == outcome


def test_log_probabilities_speak_of_the_candidate_wherever_it_stood() -> None:
    answer = completion("m", logprobs={"m": math.log(0.8), "M": math.log(0.2)})
    found = [read_answer(answer, "logprob", candidate_first=first, model=MODEL) for first in (True, False)]
    assert [a.preference for a in found] == pytest.approx([1.8, 1.2])


def test_the_parts_of_an_answer_that_are_not_there_are_empty() -> None:
    assert first_choice({}) == (None, {})
    assert first_choice({"choices": [{"message": "text"}]}) == ({"message": "text"}, {})
    assert written({"content": None}) == ""
    assert top_logprobs({"logprobs": {"content": []}}) == []
    assert top_logprobs(completion("m", logprobs={"m": -0.5})["choices"][0]) == [("m", -0.5)]


@pytest.mark.parametrize(("pattern", "says"), [("(", "is no regular expression"), ("A|B", "needs exactly one group")])
def test_a_pattern_that_cannot_find_a_verdict_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        checked_pattern(pattern)
    assert checked_pattern(r"verdict: (A|B)") == r"verdict: (A|B)"
