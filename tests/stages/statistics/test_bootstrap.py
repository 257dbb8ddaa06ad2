"""Bootstrap draws and intervals, against arithmetic and scipy."""

import numpy as np
import pytest
from scipy import stats

from stages.errors import BadInput
from stages.statistics.bootstrap import checked_draws, draw_counts, leave_one_out
from stages.statistics.interval import interval


def means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return counts @ values / counts.sum(1)


def test_a_draw_takes_as_many_items_as_there_are_and_depends_on_the_seed_alone():
    counts = draw_counts(30, 1000, seed=3)
    assert (counts.sum(1) == 30).all()
    assert counts.mean() == pytest.approx(1.0)
    assert counts.var() == pytest.approx(29 / 30, rel=0.05)  # n · (1/n) · (1 − 1/n)
    assert (counts == draw_counts(30, 1000, seed=3)).all()
    assert (counts != draw_counts(30, 1000, seed=4)).any()


def test_the_jackknife_leaves_out_each_item_once_whatever_the_portion():
    whole = np.concatenate(list(leave_one_out(7, portion=3)))
    assert (whole == 1 - np.eye(7)).all()


def test_bca_bounds_of_a_skewed_mean_are_scipys():
    values = np.random.default_rng(0).exponential(size=60)
    counts = draw_counts(60, 20_000, seed=1)
    ours = interval(values.mean(), means(values, counts), means(values, 1 - np.eye(60)), items=60)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2))
    spread = ours.standard_error
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * spread)
    assert spread == pytest.approx(values.std(ddof=1) / np.sqrt(60), rel=0.03)


def test_percentile_bounds_are_the_quantiles_of_the_draws():
    drawn = np.arange(1001.0)
    found = interval(500.0, drawn, np.empty(0), items=1001, kind="percentile")
    assert (found.low, found.high) == pytest.approx((25.0, 975.0))


def test_what_does_not_vary_has_its_own_bounds_and_what_is_not_defined_has_none():
    assert interval(3.0, np.full(1000, 3.0), np.full(5, 3.0), items=5).high == 3.0
    assert np.isnan(interval(3.0, np.full(1000, np.nan), np.full(5, 3.0), items=5).low)


def test_fewer_than_a_thousand_draws_carry_no_interval():
    assert checked_draws(1000) == 1000
    with pytest.raises(BadInput, match="draws: 999 bootstrap draws are too few"):
        checked_draws(999)
