"""What a judge's raw answer says: a verdict, or a typed outcome."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.judge.asking.answers import read_answer
from stages.judge.asking.template import MODES


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
