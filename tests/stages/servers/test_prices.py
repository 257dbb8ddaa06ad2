"""What a model costs, from a dated table; nothing is guessed."""

from typing import Any

import pytest

from stages.errors import BadInput
from stages.servers.prices import Price, price_of


def test_unknown_prices_are_said_to_be_unknown() -> None:
    table = {"as_of": "2026-01", "models": {"known": {"input": 1.0, "output": 2.0, "batch": 0.5}}}
    assert price_of("known-2", table) is None  # no guessing from a prefix
    assert price_of("known", None) is None
    assert price_of("known", table) == Price(1.0, 2.0, 0.5)
    with pytest.raises(BadInput, match=r"prices\.models\.known"):
        price_of("known", {"models": {"known": {"input": -1.0, "output": 2.0}}})


def test_a_price_by_hand_and_its_discount_in_a_batch() -> None:
    price = Price(input=10.0, output=30.0, batch=0.5)
    # 2,000 · $10 / 10⁶ + 100 · $30 / 10⁶
    assert price.of(2000, 100) == pytest.approx(0.023)
    assert price.of(2000, 100, batch=True) == pytest.approx(0.0115)


@pytest.mark.parametrize(
    ("prices", "field"),
    [
        ([1], "prices"),
        ({"models": [1]}, "prices"),
        ({"models": {"m": {"input": 1.0}}}, "prices.models.m"),
        ({"models": {"m": {"input": "much", "output": 1.0}}}, "prices.models.m"),
        ({"models": {"m": {"input": float("nan"), "output": 1.0}}}, "prices.models.m"),
        ({"models": {"m": 3}}, "prices.models.m"),
    ],
)
def test_a_table_that_is_none_is_refused(prices: Any, field: str) -> None:
    with pytest.raises(BadInput) as refused:
        price_of("m", prices)
    assert refused.value.field == field
