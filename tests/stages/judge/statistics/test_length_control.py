"""The length-controlled fit, by hand and on rows drawn from it."""

import numpy as np
import pytest
from scipy.special import expit

from stages.errors import BadInput
from stages.judge.statistics.length_control import FOLDS, GRID, LengthControl, length_feature


def synthetic(
    n: int, seed: int, weights: tuple[float, float, float] = (-0.8, 0.6, 0.3)
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Preference, lengths and difficulty of n prompts whose verdicts follow the model with the given weights."""
    random = np.random.default_rng(seed)
    difficulty = random.normal(size=n)
    len_model, len_reference = random.integers(50, 2000, n), random.integers(50, 2000, n)
    z = weights[0] * length_feature((len_reference - len_model).astype(float), np.ones((1, n)))[0]
    z += weights[1] * difficulty + weights[2]
    return 1.0 + (random.random(n) < expit(z)), len_model, len_reference, difficulty


def test_a_prompt_counted_twice_is_the_same_as_its_row_twice():
    preference, len_model, len_reference, difficulty = synthetic(50, seed=5)
    delta = (len_reference - len_model).astype(float)
    counts = np.random.default_rng(6).integers(0, 4, 50)
    weighted = LengthControl(preference - 1, delta, difficulty)
    repeated = LengthControl(
        np.repeat(preference - 1, counts), np.repeat(delta, counts), np.repeat(difficulty, counts)
    )  # fmt: skip
    total = int(counts.sum())
    ours, theirs = weighted.fit(counts[None].astype(float), 2.0), repeated.fit(np.ones((1, total)), 2.0)
    assert ours == pytest.approx(theirs, abs=1e-8)
    assert weighted.win_rates(ours, counts[None]) == pytest.approx(repeated.win_rates(theirs, np.ones((1, total))))


def test_too_few_difficulties_for_folds_of_instructions_deal_the_rows_instead():
    preference, len_model, len_reference, _ = synthetic(40, seed=9)
    control = LengthControl(preference - 1, (len_reference - len_model).astype(float), np.zeros(40))
    folds = control._folds(np.zeros(40))
    assert np.bincount(folds, minlength=FOLDS).tolist() == [8] * 5


def test_the_feature_of_length_by_hand():
    # Δ = −100, 0, 100: mean 0, variance (10,000 + 0 + 10,000) / 2, sd = 100 → tanh(−1), 0, tanh(1).
    found = length_feature(np.array([-100.0, 0.0, 100.0]), np.ones((1, 3)))
    assert found[0] == pytest.approx([-np.tanh(1), 0, np.tanh(1)])
    # Counted twice and without the middle one: variance 4 · 10,000 / 3.
    twice = length_feature(np.array([-100.0, 0.0, 100.0]), np.array([[2.0, 0.0, 2.0]]))
    assert twice[0, 2] == pytest.approx(np.tanh(100 / np.sqrt(40_000 / 3)))
    assert (length_feature(np.array([5.0, 5.0]), np.ones((1, 2))) == 0).all()


def test_without_length_and_difficulty_the_rate_at_equal_length_is_the_raw_one():
    # Only w₃ is left: σ(w₃) is the mean of the labels, 0.75.
    control = LengthControl(np.array([0.0, 1.0, 1.0, 1.0]), np.zeros(4), np.zeros(4))
    whole = np.ones((1, 4))
    weights = control.fit(whole, None)
    assert control.win_rates(weights, whole) == pytest.approx([75], abs=1e-5)
    assert weights[0] == pytest.approx([0, 0, np.log(3)], abs=1e-5)


def test_a_strong_penalty_leaves_no_weight_and_a_win_rate_of_50():
    preference, len_model, len_reference, difficulty = synthetic(60, seed=2)
    control = LengthControl(preference - 1, (len_reference - len_model).astype(float), difficulty)
    whole = np.ones((1, 60))
    weights = control.fit(whole, 1e-4)
    assert (weights == 0).all()
    assert control.win_rates(weights, whole) == pytest.approx([50])


def test_the_penalty_is_one_of_the_grid_and_does_not_depend_on_the_order_of_rows():
    preference, len_model, len_reference, difficulty = synthetic(80, seed=4)
    labels, delta = preference - 1, (len_reference - len_model).astype(float)
    chosen = LengthControl(labels, delta, difficulty).choose_penalty()
    order = np.random.default_rng(0).permutation(80)
    assert chosen in GRID
    assert LengthControl(labels[order], delta[order], difficulty[order]).choose_penalty() == chosen


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"preference": 0.5, "std_delta_len": 0.1}, "row 0 has no 'instruction_difficulty'"),
        (
            {"preference": "x", "std_delta_len": 0, "instruction_difficulty": 0},
            "row 0: preference = 'x' is not a number",
        ),
        ({"preference": 1.5, "std_delta_len": 0, "instruction_difficulty": 0}, "preference 1.5 is not a probability"),
        ({"preference": 0.5, "std_delta_len": "nan", "instruction_difficulty": 0}, "row 0 holds a value that is not"),
    ],
)
def test_gamed_rows_that_cannot_be_used_are_named(row: dict, problem: str):
    with pytest.raises(BadInput, match=problem) as refused:
        LengthControl(np.array([0.0, 1.0]), np.zeros(2), np.zeros(2), [row])
    assert refused.value.field == "gamed"
