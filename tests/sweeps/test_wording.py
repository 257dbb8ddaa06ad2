"""How figures are written."""

from typing import Any

import pytest

from sweeps.wording import bounds_text, count_text, failed_text, interval_text, number_text, power_text

from sweeps.wording import trained_sets, users  # isort: skip

POINTS: list[dict[str, Any]] = [
    {"method": "base", "strength": "", "models": [], "training": None},
    {"method": "vas", "strength": "β = 1", "models": [{"model": "Value"}], "training": {"train_flops": 2.0}},
    {"method": "vas", "strength": "β = 2", "models": [{"model": "Value"}], "training": {"train_flops": 2.0}},
    {
        "method": "ivg",
        "strength": "",
        "models": [{"model": "Value"}, {"model": "DPO"}],
        "training": {"train_flops": 5.0},
    },
]


@pytest.mark.parametrize(
    ("mean", "low", "high", "text"),
    [
        (1.234, 1.0, 1.5, "1.23 [1.00, 1.50]"),
        (12.34, 11.0, 13.0, "12.3 [11.0, 13.0]"),
        (1.0, -60.0, 60.0, "1 [-60, 60]"),  # the width decides
        (1.234, None, None, "1.23"),
        (None, None, None, "–"),
    ],
)
def test_an_interval_has_the_digits_of_its_mean_or_its_width(mean: Any, low: Any, high: Any, text: str) -> None:
    assert interval_text({"mean": mean, "low": low, "high": high}) == text


def test_numbers_and_counts() -> None:
    assert (number_text(0.0), number_text(-12.345), number_text(1e6)) == ("0.000", "-12.3", "1,000,000")
    assert (power_text(3.21e11), power_text(0.0), power_text(None)) == ("3.2e11", "0", "–")
    assert (count_text(90112.4), count_text(None)) == ("90,112", "–")


def test_failed_verdicts_and_what_they_could_have_changed() -> None:
    found = {"failures": {"refusal": 1, "empty": 2}, "verdicts": 128, "worst": 40.06, "best": 60.0}
    assert (failed_text(found), bounds_text(found)) == ("3 of 128", "40.1 … 60.0")
    assert bounds_text(found | {"failures": {}}) == "–"


def test_a_method_stands_by_its_name_where_all_its_points_are_meant() -> None:
    content = {"points": POINTS}
    assert users(content, [1, 2, 3]) == ["vas", "ivg"]
    assert users(content, [0, 2]) == ["base", "vas (β = 2)"]


def test_the_same_models_at_the_same_cost_are_named_once() -> None:
    assert trained_sets({"points": POINTS}) == [
        ("Value", {"train_flops": 2.0}, ["vas"]), ("Value, DPO", {"train_flops": 5.0}, ["ivg"]),
    ]  # fmt: skip
