"""Two judges on the same items: worked out by hand, against scikit-learn, and on two real judges."""

import csv
import os
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from stages.errors import BadInput
from stages.judge.statistics.agreement import agreement, choices, compare_judges

ALPACA = os.environ.get("TILT_ALPACA_DATA", "")
needs_alpaca = pytest.mark.skipif(not ALPACA, reason="TILT_ALPACA_DATA is not set: AlpacaEval's verdicts are not here")
preferences = st.lists(st.tuples(*[st.sampled_from([1.0, 1.2, 1.5, 1.9, 2.0])] * 2), min_size=2, max_size=40)


def test_kappa_is_what_is_left_of_the_agreement_beyond_chance():
    # Cohen's table [[20, 5], [10, 15]] over 50 items: p_o = 35/50 = .7
    # p_e = (25·30 + 25·20) / 50² = .5; κ = (.7 − .5) / (1 − .5) = .4
    first = [1.0] * 25 + [2.0] * 25
    second = [1.0] * 20 + [2.0] * 5 + [1.0] * 10 + [2.0] * 15
    found = agreement(first, second)
    assert found.raw.value == pytest.approx(0.7)
    assert found.chance == pytest.approx(0.5)
    assert found.kappa.value == pytest.approx(0.4)
    assert found.base_rates[0] == {"reference": 0.5, "tie": 0.0, "candidate": 0.5}
    assert found.base_rates[1] == {"reference": 0.6, "tie": 0.0, "candidate": 0.4}
    assert found.table.tolist() == [[20, 0, 5], [0, 0, 0], [10, 0, 15]]
    # Large-sample error of κ ≈ √(p_o(1 − p_o) / n) / (1 − p_e) = √(.21 / 50) / .5 = .130
    assert found.kappa.standard_error == pytest.approx(0.130, rel=0.1)
    assert 0.05 < found.kappa.low < 0.4 < found.kappa.high < 0.7


def test_two_judges_who_nearly_always_choose_the_reference_agree_by_chance():
    first, second = np.ones(100), np.ones(100)
    first[:5], second[5:10] = 2.0, 2.0  # each prefers the candidate on 5 other prompts
    found = agreement(first, second)
    assert found.raw.value == pytest.approx(0.90)
    assert found.kappa.value == pytest.approx((0.90 - 0.905) / 0.095)  # p_e = .95² + .05² = .905


def test_where_both_always_choose_the_same_kappa_says_nothing():
    found = agreement([1.0] * 5, [1.0] * 5)
    assert (found.raw.value, found.chance) == (1.0, 1.0)
    assert np.isnan(found.kappa.value)
    assert np.isnan(found.kappa.low)


@settings(max_examples=40, deadline=None)
@given(preferences)
def test_kappa_is_scikit_learns(pairs):
    first, second = (list(side) for side in zip(*pairs, strict=True))
    found = agreement(first, second)
    a, b = choices(first), choices(second)
    if np.isnan(found.kappa.value):
        assert len(set(a) | set(b)) == 1
    else:
        assert found.kappa.value == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(preferences)
def test_neither_the_order_of_items_nor_that_of_judges_matters(pairs):
    first, second = (list(side) for side in zip(*pairs, strict=True))
    found, back, turned = agreement(first, second), agreement(first[::-1], second[::-1]), agreement(second, first)
    assert found.kappa == back.kappa or np.isnan(found.kappa.value)
    assert found.raw == back.raw
    assert found.kappa.value == pytest.approx(turned.kappa.value, nan_ok=True)
    assert found.base_rates == turned.base_rates[::-1]


def test_preferences_near_a_half_count_as_ties_on_request():
    assert choices([1.0, 1.46, 1.5, 1.54, 1.56], tie=0.05).tolist() == [0, 1, 1, 1, 2]


def test_several_judges_are_compared_in_pairs_over_the_items_they_share():
    judged: dict[str, dict[Hashable, float]] = {
        "one": {"a": 1.0, "b": 2.0, "c": 1.0},
        "two": {"c": 1.0, "b": 2.0},
        "three": {"a": 2.0, "b": 1.0, "d": 1.5},
    }
    found = compare_judges(judged)
    assert {pair: result.items for pair, result in found.items()} == {
        ("one", "two"): 2,
        ("one", "three"): 2,
        ("two", "three"): 1,
    }
    assert found["one", "two"].raw.value == 1.0
    assert found["one", "three"].raw.value == 0.0


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: agreement([1.0], [1.0, 2.0]), "second: 2 preferences for 1 items"),
        (lambda: agreement([], []), "first: there is no item"),
        (lambda: agreement([0.0], [1.0]), "preference: 0: one number in 1…2"),
        (lambda: agreement([float("nan")], [1.0]), "leave failed verdicts out"),
        (lambda: agreement([1.0], [1.0], tie=0.5), "tie: 0.5"),
        (lambda: compare_judges({"one": {"a": 1.0}}), "agreement needs two"),
        (lambda: compare_judges({"one": {"a": 1.0}, "two": {"b": 1.0}}), "one and two share no item"),
    ],
)
def test_input_that_cannot_be_used_is_refused(call, problem):
    with pytest.raises(BadInput, match=problem):
        call()


@needs_alpaca
def test_two_real_judges_on_the_same_805_outputs():
    """A judge that answers with a token's probability and one that reasons first, on alpaca-7b's outputs."""
    first: dict[Hashable, float] = {
        r["index"]: float(r["preference"]) for r in _table("annotations.csv") if r["model"] == "alpaca-7b"
    }
    second: dict[Hashable, float] = {
        r["index"]: float(r["preference_cot_fn"]) for r in _table("second_judge_cot.csv") if r["model"] == "alpaca-7b"
    }
    found = compare_judges({"logprob": first, "reasoning": second})["logprob", "reasoning"]
    a, b = (choices([side[index] for index in first]) for side in (first, second))
    assert found.items == 805
    assert found.raw.value == pytest.approx(np.mean(a == b))
    assert found.kappa.value == pytest.approx(cohen_kappa_score(a, b))
    assert found.raw.value > 0.95  # looks like perfect agreement …
    assert found.chance > 0.93  # … and is mostly the reference's winning nearly everywhere
    assert found.kappa.low < found.kappa.value < found.kappa.high < 0.9
    assert found.base_rates[0]["candidate"] < 0.05
    assert found.base_rates[1]["candidate"] < 0.05


def _table(name: str) -> list[dict[str, str]]:
    with (Path(ALPACA) / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
