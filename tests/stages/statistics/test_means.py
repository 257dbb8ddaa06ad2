"""Means over prompts, bootstrap intervals, paired differences."""

import numpy as np
import pytest

from stages.statistics.means import (
    by_prompt,
    mean_interval,
    paired_difference,
    ratio_interval,
    standard_error,
)


def test_samples_of_a_prompt_are_averaged_before_anything_else() -> None:
    # a: (1 + 3) / 2 = 2; b: 10. The mean over prompts is 6, not the mean of the three samples (14/3).
    means = by_prompt(["a", "b", "a"], [1.0, 10.0, 3.0])
    assert means == {"a": 2.0, "b": 10.0}
    assert mean_interval(np.array(list(means.values())), draws=1000, seed=0).value == 6.0


def test_two_prompts_by_hand() -> None:
    # Draws of two from {0, 1}: 00, 01, 10, 11 → means 0, ½, ½, 1 with ¼, ½, ¼: sd = √(¼·¼ + ¼·¼) = 0.3536.
    estimate = mean_interval(np.array([0.0, 1.0]), draws=20_000, seed=1)
    assert estimate.value == 0.5
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    assert estimate.standard_error == pytest.approx(np.sqrt(1 / 8), abs=0.005)


def test_symmetric_values_give_the_normal_interval() -> None:
    # 100 values with population sd 1: standard error 1/√100 = 0.1, so mean ± 1.96·0.1.
    values = np.linspace(-1, 1, 100)
    values /= values.std()
    estimate = mean_interval(values, draws=20_000, seed=0)
    assert estimate.low == pytest.approx(-0.196, abs=0.01)
    assert estimate.high == pytest.approx(0.196, abs=0.01)


def test_skewed_values_move_the_interval_towards_the_long_tail() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    estimate = mean_interval(values, draws=10_000, seed=0)
    assert estimate.high - estimate.value > 1.1 * (estimate.value - estimate.low)


@pytest.mark.parametrize("shape", ["normal", "exponential"])
def test_the_interval_holds_the_truth_about_95_times_in_100(shape: str) -> None:
    generator = np.random.default_rng(7)
    truth = 0.0 if shape == "normal" else 1.0
    covered = 0
    for seed in range(400):
        values = getattr(generator, shape)(size=60)
        estimate = mean_interval(values, draws=1000, seed=seed)
        covered += estimate.low <= truth <= estimate.high
    assert 0.91 <= covered / 400 <= 0.98  # binomial sd of 400 trials: 1.1 points


def test_correlated_samples_do_not_narrow_the_interval() -> None:
    # 30 prompts with 10 identical samples each hold 30 observations, not 300.
    prompts = np.random.default_rng(0).normal(size=30)
    ids = [f"{row}" for row in range(30) for _ in range(10)]
    clustered = by_prompt(ids, np.repeat(prompts, 10))
    wide = mean_interval(np.array(list(clustered.values())), draws=2000, seed=0)
    naive = mean_interval(np.repeat(prompts, 10), draws=2000, seed=0)
    assert (wide.high - wide.low) > 2.5 * (naive.high - naive.low)  # √10 = 3.16


def test_pairing_takes_the_prompts_difficulty_out() -> None:
    generator = np.random.default_rng(3)
    hard = generator.normal(0, 2, 50)
    ours = {f"p{i:02d}": h + 0.5 + generator.normal(0, 0.3) for i, h in enumerate(hard)}
    theirs = {f"p{i:02d}": h + generator.normal(0, 0.3) for i, h in enumerate(hard)}
    paired = paired_difference(ours, theirs, draws=2000, seed=0)
    one, other = (
        mean_interval(np.array(list(side.values())), draws=2000, seed=0).standard_error for side in (ours, theirs)
    )
    assert paired.sign == 1
    # Paired: √(0.3² + 0.3²)/√50 = 0.06; unpaired: √(2·(2² + 0.3²))/√50 = 0.40.
    assert paired.standard_error < np.hypot(one, other) / 4


def test_pairing_matches_by_prompt_and_not_by_position() -> None:
    difference = paired_difference({"a": 1.0, "b": 5.0, "c": 2.0}, {"c": 1.0, "b": 4.0}, draws=1000, seed=0)
    assert (difference.value, difference.items) == (1.0, 2)


def test_no_prompt_in_common_is_refused() -> None:
    with pytest.raises(ValueError, match="share no prompt"):
        paired_difference({"a": 1.0}, {"b": 1.0}, draws=1000, seed=0)


def test_a_rate_is_the_ratio_of_the_sums() -> None:
    # 100 tokens in 1 s and 100 tokens in 4 s: 200 / 5 = 40 tokens/s, not the mean of 100 and 25.
    assert ratio_interval(np.array([100.0, 100.0]), np.array([1.0, 4.0]), draws=1000, seed=0).value == 40.0


def test_what_does_not_vary_has_no_width_and_what_does_not_exist_is_nan() -> None:
    bound = mean_interval(np.full(8, 1.835), draws=1000, seed=0)
    assert bound.low == bound.value == bound.high == pytest.approx(1.835)
    assert np.isnan(mean_interval(np.array([1.0, np.nan]), draws=1000, seed=0).value)
    single = mean_interval(np.array([2.0]), draws=1000, seed=0)
    assert single.value == 2.0
    assert np.isnan(single.low)
    assert single.sign == 0


def test_the_seed_decides_and_enough_draws_are_asked_for() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert mean_interval(values, draws=1000, seed=5) == mean_interval(values, draws=1000, seed=5)
    assert mean_interval(values, draws=1000, seed=5) != mean_interval(values, draws=1000, seed=6)
    with pytest.raises(ValueError, match="1,000 at least"):
        mean_interval(values, draws=999, seed=0)


def test_standard_error_of_a_mean() -> None:
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)  # sd √2, ÷ √2
    assert standard_error(np.array([1.0])) == 0.0
