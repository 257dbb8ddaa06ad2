"""From two log-probabilities to a preference, and AlpacaEval's order of the outputs."""

import csv
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.judge.verdicts.preference import (
    NoVerdict,
    preference_from_choice,
    preference_from_logprobs,
    token_logprobs,
)

ALPACA = os.environ.get("TILT_ALPACA_DATA", "")
needs_alpaca = pytest.mark.skipif(not ALPACA, reason="TILT_ALPACA_DATA is not set: AlpacaEval's verdicts are not here")
logprobs = st.floats(-50, 0)


def test_the_preference_is_two_minus_the_share_of_the_first_token():
    # P(m) = 0.6, P(M) = 0.2: 2 − 0.6 / 0.8 = 1.25; switched, the first one is the candidate: 3 − 1.25
    first, second = math.log(0.6), math.log(0.2)
    assert preference_from_logprobs(first, second, candidate_first=False) == pytest.approx(1.25)
    assert preference_from_logprobs(first, second, candidate_first=True) == pytest.approx(1.75)


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(None, -9.0, 2.0), (-9.0, None, 1.0), (-math.inf, -1.0, 2.0)]
)
def test_an_absent_token_has_probability_zero(first, second, expected):
    assert preference_from_logprobs(first, second, candidate_first=False) == expected


@pytest.mark.parametrize("absent", [None, -math.inf])
def test_both_tokens_absent_is_a_failure_and_not_a_draw(absent):
    with pytest.raises(NoVerdict, match="neither 'm' nor 'M'"):
        preference_from_logprobs(absent, absent, candidate_first=True)


@pytest.mark.parametrize("wrong", [math.nan, 0.7])
def test_what_is_no_log_probability_is_a_failure(wrong):
    with pytest.raises(NoVerdict, match="not a log-probability"):
        preference_from_logprobs(-1.0, wrong, candidate_first=False)


@given(logprobs, logprobs)
def test_showing_the_outputs_in_the_other_order_mirrors_the_preference(first, second):
    shown_second = preference_from_logprobs(first, second, candidate_first=False)
    shown_first = preference_from_logprobs(first, second, candidate_first=True)
    assert shown_first == pytest.approx(3 - shown_second, abs=1e-12)
    assert preference_from_logprobs(second, first, candidate_first=False) == pytest.approx(shown_first, abs=1e-12)
    assert 1 <= shown_second <= 2


def test_very_unlikely_tokens_do_not_underflow():
    assert preference_from_logprobs(-9999.0, -9999.0, candidate_first=False) == 1.5
    assert preference_from_logprobs(-9999.0, -1.0, candidate_first=False) == 2.0


def test_only_the_exact_tokens_count():
    assert token_logprobs([("m", -0.2), (" M", -1.8), ("Model", -3.0)]) == (-0.2, None)
    assert token_logprobs([]) == (None, None)


@pytest.mark.parametrize(
    ("choice", "candidate_first", "expected"),
    [("m", False, 1.0), ("M", False, 2.0), ("m", True, 2.0), ("M", True, 1.0), ("tie", True, 1.5)],
)
def test_a_bare_choice_is_a_preference_of_one_two_or_a_half(choice, candidate_first, expected):
    assert preference_from_choice(choice, candidate_first=candidate_first) == expected


def test_another_word_is_no_choice():
    with pytest.raises(NoVerdict):
        preference_from_choice("A", candidate_first=False)


@needs_alpaca
def test_every_stored_verdict_comes_out_of_its_log_probabilities():
    items = _table("items.csv")
    checked = 0
    for row in _table("annotations.csv"):
        first, second = (float(row[name]) if row[name] else None for name in ("lp_m", "lp_M"))
        if first is None and second is None:
            continue  # not published
        switched = items[int(row["index"])]["switched"] == "1"
        ours = preference_from_logprobs(first, second, candidate_first=switched)
        assert ours == pytest.approx(float(row["preference"]), abs=1e-6)
        checked += 1
    assert checked == 7226  # 9 of the 10 models publish them; two verdicts have one token only


def _table(name: str) -> list[dict[str, str]]:
    with (Path(ALPACA) / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
