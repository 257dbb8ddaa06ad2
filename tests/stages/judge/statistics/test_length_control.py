"""The length-controlled fit, by hand and on rows drawn from it."""

import numpy as np
import pytest
from scipy.special import expit

from stages.judge.statistics.length_control import FOLDS, LengthControl, length_feature


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
    repeated = LengthControl(*(np.repeat(column, counts) for column in (preference - 1, delta, difficulty)))
    total = int(counts.sum())
    ours, theirs = weighted.fit(counts[None].astype(float), 2.0), repeated.fit(np.ones((1, total)), 2.0)
    assert ours == pytest.approx(theirs, abs=1e-8)
    assert weighted.win_rates(ours, counts[None]) == pytest.approx(repeated.win_rates(theirs, np.ones((1, total))))


def test_too_few_difficulties_for_folds_of_instructions_deal_the_rows_instead():
    preference, len_model, len_reference, _ = synthetic(40, seed=9)
    control = LengthControl(preference - 1, (len_reference - len_model).astype(float), np.zeros(40))
    folds = control._folds(np.zeros(40))
    assert np.bincount(folds, minlength=FOLDS).tolist() == [8] * 5
