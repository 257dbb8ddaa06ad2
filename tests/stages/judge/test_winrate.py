"""Win rates: synthetic ones worked out by hand, and AlpacaEval's published ones where TILT_ALPACA_DATA is set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from stages.errors import BadInput
from stages.judge.statistics.length_control import LengthControl, length_feature
from stages.judge.statistics.prompt_table import PromptTable
from stages.judge.winrate import length_controlled, raw_win_rate, reliability, win_rate_difference


def columns(rows: PromptTable) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return rows.preference, rows.len_model, rows.len_reference, rows.difficulty


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


# --- the raw win rate -------------------------------------------------------------------------------------------------


def test_raw_win_rate_is_the_mean_preference_and_its_error_the_deviation_over_root_n():
    # preferences − 1 = 0, 0.5, 1, 1: mean 0.625; squared deviations .390625 + .015625 + 2 · .140625 = .6875
    # variance (ddof 1) = .6875 / 3 = .229167, sd = .478714, / √4 = .239357
    assert raw_win_rate([1.0, 1.5, 2.0, 2.0]) == pytest.approx((62.5, 23.9357), abs=1e-4)


@given(st.lists(st.floats(1, 2), min_size=2, max_size=30))
def test_swapping_model_and_reference_mirrors_the_raw_win_rate_around_50(preferences):
    ours, error = raw_win_rate(preferences)
    theirs, same_error = raw_win_rate([3 - preference for preference in preferences])
    assert ours - 50 == pytest.approx(50 - theirs, abs=1e-9)
    assert error == pytest.approx(same_error, abs=1e-9)


@given(st.lists(st.floats(1, 2), min_size=2, max_size=30))
def test_judging_every_prompt_twice_alike_leaves_the_win_rate_and_only_seems_to_halve_the_variance(preferences):
    once, error = raw_win_rate(preferences)
    twice, smaller = raw_win_rate(preferences * 2)
    n = len(preferences)
    assert twice == pytest.approx(once, abs=1e-9)
    # Σ doubles, n − 1 becomes 2n − 1, and the mean is over 2n: error² · (n − 1) / (2n − 1)
    assert smaller == pytest.approx(error * np.sqrt((n - 1) / (2 * n - 1)), abs=1e-9)


# --- the length-controlled win rate -----------------------------------------------------------------------------------


def test_known_weights_come_back_and_the_length_effect_is_taken_out():
    preference, len_model, len_reference, difficulty = synthetic(20_000, seed=1)
    control = LengthControl(preference - 1, (len_reference - len_model).astype(float), difficulty)
    whole = np.ones((1, 20_000))
    weights = control.fit(whole, None)
    assert weights[0] == pytest.approx([-0.8, 0.6, 0.3], abs=0.06)
    truth = 100 * np.mean(expit(0.6 * difficulty + 0.3))
    assert control.win_rates(weights, whole)[0] == pytest.approx(truth, abs=1.0)


def test_a_longer_candidate_that_wins_by_length_alone_is_brought_back_to_50():
    # Always 500 characters longer or shorter, evenly; whoever is longer wins 9 of 10. At equal length: a draw.
    n = 200
    longer = np.arange(n) % 5 != 0  # longer on 4 of 5 prompts
    wins = np.where(np.arange(n) % 10 == 3, ~longer, longer)
    wins = np.where(np.arange(n) % 50 == 0, ~wins, wins)
    result = length_controlled(1.0 + wins, np.where(longer, 1500, 500), np.full(n, 1000), np.zeros(n))
    assert result.win_rate > 70
    assert result.lc_win_rate < 60
    assert result.weights.length < 0  # the reference's being longer speaks against the candidate


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([None, 2.8]))
def test_swapping_model_and_reference_mirrors_the_length_controlled_win_rate_too(seed, strength):
    # p → 1 − p and Δ → −Δ: w₁ stays, w₂ and w₃ change sign, σ(−z) = 1 − σ(z); the L1 penalty sees no sign.
    preference, len_model, len_reference, difficulty = synthetic(60, seed)
    ours = length_controlled(preference, len_model, len_reference, difficulty, C=strength, kind="percentile")
    theirs = length_controlled(3 - preference, len_reference, len_model, difficulty, C=strength, kind="percentile")
    assert ours.lc_win_rate - 50 == pytest.approx(50 - theirs.lc_win_rate, abs=1e-6)
    assert ours.weights.length == pytest.approx(theirs.weights.length, abs=1e-7)
    assert ours.weights.candidate == pytest.approx(-theirs.weights.candidate, abs=1e-7)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_of_rows_and_of_gamed_rows_changes_nothing_at_all(seed):
    rows = synthetic(40, seed=3)
    gamed = [
        {"preference": p, "std_delta_len": length, "instruction_difficulty": d}
        for p, length, d in np.random.default_rng(4).random((30, 3))
    ]
    random = np.random.default_rng(seed)
    order = random.permutation(40)
    shuffled = [gamed[i] for i in random.permutation(30)]
    assert length_controlled(*(column[order] for column in rows), gamed=shuffled) == length_controlled(
        *rows, gamed=gamed
    )


def test_the_standard_error_is_the_spread_over_fresh_samples_of_prompts():
    def lc(seed: int) -> float:
        preference, len_model, len_reference, difficulty = synthetic(300, seed)
        control = LengthControl(preference - 1, (len_reference - len_model).astype(float), difficulty)
        whole = np.ones((1, 300))
        return float(control.win_rates(control.fit(whole, None), whole)[0])

    spread = np.std([lc(seed) for seed in range(200)], ddof=1)
    results = [length_controlled(*synthetic(300, seed), kind="percentile") for seed in (1, 2)]
    printed = np.mean([result.lc_standard_error for result in results])
    assert printed == pytest.approx(spread, rel=0.2)  # the spread itself is known to 1 / √400 = 5 %


def test_a_candidate_that_always_wins_has_a_win_rate_of_100_and_no_overflow():
    _, len_model, len_reference, difficulty = synthetic(30, seed=7)
    result = length_controlled(np.full(30, 2.0), len_model, len_reference, difficulty)
    assert (result.win_rate, result.standard_error) == (100.0, 0.0)
    assert result.lc_win_rate == pytest.approx(100.0, abs=1e-6)


def test_identical_outputs_leave_nothing_to_control():
    preference = np.array([1.0, 2.0, 1.5, 1.5])
    result = length_controlled(preference, [7, 7, 7, 7], [7, 7, 7, 7], [0.1, -0.3, 0.2, 0.0])
    assert result.weights.length == 0.0
    assert any("never varies" in note for note in result.notes)


def test_very_long_and_empty_outputs_are_lengths_like_others():
    preference, _, len_reference, difficulty = synthetic(40, seed=8)
    result = length_controlled(preference, [0, 100_000] * 20, len_reference, difficulty)
    assert 0 <= result.lc_win_rate <= 100
    assert np.isfinite(result.lc_standard_error)


@pytest.mark.parametrize(
    ("changed", "field", "problem"),
    [
        ({"preference": [1.0, 0.0, 1.5, 2.0]}, "preference", "not in 1…2"),
        ({"preference": [1.0, float("nan"), 1.5, 2.0]}, "preference", "leave failed verdicts out"),
        ({"preference": []}, "preference", "there is none"),
        ({"len_model": [1, 2, 3]}, "len_model", r"\(3,\) values for \(4,\) preferences"),
        ({"difficulty": [0.0, 0.1, float("inf"), 0.2]}, "difficulty", "row 2 is not finite"),
        ({"C": 0.0}, "C", "not a positive number"),
        ({"draws": 100}, "draws", "too few"),
        ({"kind": "normal"}, "interval", "neither 'bca' nor 'percentile'"),
        ({"gamed": [{"preference": 1.4}]}, "gamed", "row 0 has no 'std_delta_len'"),
        (
            {"gamed": [{"preference": 1.4, "std_delta_len": 0, "instruction_difficulty": 0}]},
            "gamed",
            "not a probability",
        ),
    ],
)
def test_input_that_cannot_be_used_is_refused_by_name(changed, field, problem):
    arguments = {
        "preference": [1.0, 2.0, 1.5, 2.0],
        "len_model": [10, 20, 30, 40],
        "len_reference": [20, 20, 20, 20],
        "difficulty": [0.1, 0.2, 0.3, 0.4],
        **changed,
    }
    with pytest.raises(BadInput, match=problem) as caught:
        length_controlled(**arguments)
    assert caught.value.field == field


# --- reliability ------------------------------------------------------------------------------------------------------


def test_an_extreme_win_rate_or_lengths_that_barely_overlap_are_said_to_be_unreliable():
    both_ways, one_way = np.array([-1.0, 1.0] * 50), np.array([1.0] * 97 + [-1.0] * 3)
    assert reliability(50.0, both_ways) == ()
    assert len(reliability(19.9, both_ways)) == len(reliability(80.1, both_ways)) == 1
    (note,) = reliability(50.0, one_way)
    assert "longer than the reference on 3.0% of the prompts" in note
    assert len(reliability(2.0, one_way)) == 2


# --- paired differences -----------------------------------------------------------------------------------------------


def as_judged(rows: tuple[np.ndarray, ...], start: int = 0) -> PromptTable:
    return PromptTable(tuple(f"prompt {start + i:03d}" for i in range(len(rows[0]))), *rows)


def test_the_difference_of_a_model_and_itself_is_exactly_zero():
    ours = as_judged(synthetic(50, seed=10))
    difference = win_rate_difference(ours, ours)
    assert (difference.win_rate.low, difference.win_rate.value, difference.win_rate.high) == (0.0, 0.0, 0.0)
    assert difference.lc_win_rate.standard_error == 0.0


def test_pairing_cancels_what_prompts_do_to_both():
    preference, len_model, len_reference, difficulty = synthetic(300, seed=11)
    better = preference.copy()
    better[np.flatnonzero(preference == 1.0)[:30]] = 2.0  # ours wins 30 more of the 300: + 10 points
    ours = as_judged((better, len_model, len_reference, difficulty))
    theirs = as_judged((preference, len_model, len_reference, difficulty))
    difference = win_rate_difference(ours, theirs)
    assert difference.win_rate.value == pytest.approx(10.0)
    # sd of 30 ones among 300 = √(.1 · .9 · 300 / 299) = .3005, / √300 = 1.735 points
    assert difference.win_rate.standard_error == pytest.approx(1.735, rel=0.1)
    unpaired = np.hypot(raw_win_rate(better)[1], raw_win_rate(preference)[1])
    assert difference.win_rate.standard_error < 0.6 * unpaired
    assert 0 < difference.lc_win_rate.low < difference.lc_win_rate.value < difference.lc_win_rate.high


def test_models_judged_on_different_prompts_are_not_compared_and_the_prompts_are_named():
    rows = synthetic(20, seed=12)
    ours, theirs = as_judged(rows), as_judged(rows, start=2)
    with pytest.raises(BadInput, match=r"2 instructions \('prompt 000', 'prompt 001'\) judged for the first only") as e:
        win_rate_difference(ours, theirs)
    assert "'prompt 020', 'prompt 021'" in e.value.problem
    shared = sorted(set(ours.instructions) & set(theirs.instructions))
    assert win_rate_difference(ours.restricted(shared), theirs.restricted(shared)).prompts == 18
