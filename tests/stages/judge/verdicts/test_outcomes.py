"""How a question can end."""

from typing import Any

import pytest

from stages.judge.asking.answers import read_answer
from stages.judge.verdicts.outcomes import ASK_AGAIN, FAILURES, IDENTICAL, VERDICT
from tests.stages.servers.loopback import completion

EACH = {
    "refusal": completion(None, refusal="no"),
    "filtered": completion("A", finish="content_filter"),
    "empty": completion(""),
    "unreadable": completion("Both are fine."),
    "truncated": completion("I think that", finish="length"),
    "missing_logprobs": completion("m"),
    "no_preference": completion("The", logprobs={"The": -0.1}),
    "wrong_model": completion("[[A]]", model="another"),
}


@pytest.mark.parametrize("outcome", ASK_AGAIN)
def test_every_outcome_that_is_asked_again_is_read_from_some_answer(outcome: str) -> None:
    answer: Any = EACH[outcome]
    mode = "logprob" if outcome in ("missing_logprobs", "no_preference") else "text"
    found = read_answer(answer, mode, candidate_first=True, model="judge-2026-01-01")
    assert (found.outcome, found.preference) == (outcome, None)
    assert found.problem


def test_a_failure_is_no_verdict() -> None:
    assert set(ASK_AGAIN) < set(FAILURES)
    assert len(set(FAILURES)) == len(FAILURES)
    assert not {VERDICT, IDENTICAL} & set(FAILURES)
