"""The solver against arithmetic, the optimality conditions and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from stages.judge.statistics.logistic import fit_logistic, log_loss


def rows(n: int, seed: int):
    random = np.random.default_rng(seed)
    features = tuple(random.normal(size=(1, n)) * scale for scale in (1.0, 0.5, 2.0))
    z = 0.7 * features[0][0] - 0.4 * features[1][0]
    labels = np.clip(expit(z) + random.normal(scale=0.2, size=n), 0, 1)
    return features, labels


def test_one_constant_feature_gives_the_log_odds_of_the_weighted_mean():
    # Σ s·p / Σ s = (3·1 + 1·0.5 + 1·0) / 5 = 0.7; log(0.7 / 0.3) = 0.847298
    w = fit_logistic((np.ones((1, 3)),), np.array([1.0, 0.5, 0.0]), np.array([[3.0, 1.0, 1.0]]), np.zeros(1))
    assert w[0, 0] == pytest.approx(0.847298, abs=1e-6)


def test_a_strong_penalty_gives_exact_zeros():
    features, labels = rows(50, seed=0)
    # At w = 0 the gradient is Σ s·(½ − p)·x; a penalty above its largest entry keeps all at zero.
    gradient = max(abs(float(np.sum((0.5 - labels) * column[0]))) for column in features)
    fitted = fit_logistic(features, labels, np.ones((2, 50)), np.array([1.001 * gradient, 0.999 * gradient]))
    assert fitted[0].tolist() == [0.0, 0.0, 0.0]
    assert np.count_nonzero(fitted[1]) == 1


@pytest.mark.parametrize("strength", [0.01, 0.1, 2.782559, 1e4])
def test_it_agrees_with_scikit_learn_to_1e_6(strength):
    features, labels = rows(200, seed=1)
    weights = np.random.default_rng(2).integers(0, 3, 200) + 0.1
    x = np.column_stack([column[0] for column in features])
    theirs = LogisticRegression(
        C=strength, l1_ratio=1.0, solver="liblinear", fit_intercept=False, tol=1e-12, max_iter=100_000, random_state=0
    )
    theirs.fit(  # soft labels as the same row twice
        np.vstack([x, x]), np.repeat([1, 0], 200), sample_weight=np.r_[labels * weights, (1 - labels) * weights]
    )
    ours = fit_logistic(features, labels, weights[None], np.array([1 / strength]))
    assert ours[0] == pytest.approx(theirs.coef_[0], abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 30))
def test_every_fit_meets_the_optimality_conditions(seed, penalty):
    features, labels = rows(40, seed)
    weights = np.random.default_rng(seed).integers(0, 4, (3, 40)).astype(float)
    fitted = fit_logistic(features, labels, weights, np.full(3, penalty))
    for w, s in zip(fitted, weights, strict=True):
        z = sum(w[d] * column[0] for d, column in enumerate(features))
        gradient = np.array([np.sum(s * (expit(z) - labels) * column[0]) for column in features])
        # ∂/∂wⱼ = −λ·sign(wⱼ) where wⱼ ≠ 0, and within ±λ where wⱼ = 0
        off = np.where(w != 0, np.abs(gradient + penalty * np.sign(w)), np.maximum(np.abs(gradient) - penalty, 0))
        assert off.max() < 1e-5


def test_fits_are_independent_of_their_company_and_of_the_start():
    features, labels = rows(60, seed=3)
    weights = np.random.default_rng(4).random((5, 60))
    together = fit_logistic(features, labels, weights, np.full(5, 0.3))
    alone = np.concatenate([fit_logistic(features, labels, row[None], np.array([0.3])) for row in weights])
    warm = fit_logistic(features, labels, weights, np.full(5, 0.3), start=np.array([3.0, -2.0, 1.0]))
    assert together == pytest.approx(alone, abs=1e-9)
    assert together == pytest.approx(warm, abs=1e-7)


def test_repeated_and_constant_zero_features_do_no_harm():
    (a, _, _), labels = rows(60, seed=5)
    fitted = fit_logistic((a, a, np.zeros_like(a)), labels, np.ones((1, 60)), np.zeros(1))
    alone = fit_logistic((a,), labels, np.ones((1, 60)), np.zeros(1))
    assert fitted[0, :2].sum() == pytest.approx(alone[0, 0], abs=1e-5)
    assert fitted[0, 2] == 0.0


def test_log_loss_does_not_overflow():
    assert log_loss(np.array([0.0, 1000.0, -1000.0]), np.array([1.0, 1.0, 1.0])) == pytest.approx([np.log(2), 0, 1000])
