"""Intervals from bootstrap draws, against arithmetic and scipy."""

import numpy as np
import pytest
from scipy import stats

from stages.errors import BadInput
from stages.statistics.bootstrap import draw_counts
from stages.statistics.interval import Interval, interval
from stages.statistics.means import mean_interval


def means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return counts @ values / counts.sum(1)


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


def test_detectable_difference_by_simulation() -> None:
    # With a true difference of that size, 80 % of studies find it: the interval excludes zero.
    generator = np.random.default_rng(11)
    size = Interval(0.0, 0.0, 0.0, 1 / np.sqrt(50), 50).detectable  # (1.960 + 0.842)·0.141 = 0.396
    assert size == pytest.approx(0.396, abs=0.001)
    found = [mean_interval(generator.normal(size, 1, 50), draws=1000, seed=seed).low > 0 for seed in range(300)]
    assert 0.72 <= np.mean(found) <= 0.88


@pytest.mark.parametrize(
    ("low", "high", "sign"), [(0.1, 0.5, 1), (-0.5, -0.1, -1), (-0.1, 0.5, 0), (np.nan, np.nan, 0)]
)
def test_the_sign_is_known_where_the_whole_interval_has_it(low: float, high: float, sign: int):
    assert Interval(0.2, low, high, 0.1, 10).sign == sign


def test_draws_without_the_figure_are_left_out_and_two_are_needed():
    drawn = np.array([np.nan, 1.0, 3.0, np.nan])
    found = interval(2.0, drawn, np.empty(0), items=2, kind="percentile")
    assert (found.low, found.high) == pytest.approx((1.05, 2.95))  # 2.5 % and 97.5 % of the way from 1 to 3
    assert found.standard_error == pytest.approx(np.sqrt(2))
    assert np.isnan(interval(2.0, drawn[:2], np.empty(0), items=2).low)
    assert np.isnan(interval(np.nan, drawn, np.empty(0), items=2).standard_error)


def test_another_kind_of_interval_is_refused():
    with pytest.raises(BadInput, match="interval: 'normal' is neither 'bca' nor 'percentile'"):
        interval(1.0, np.arange(5.0), np.arange(5.0), items=5, kind="normal")  # type: ignore[arg-type]
