"""The order in which a judge sees two responses."""

import csv
import os
from pathlib import Path

import pytest

from stages.judge.verdicts.order import CANDIDATE_FIRST, REFERENCE_FIRST, orders, seeded_order

ALPACA = os.environ.get("TILT_ALPACA_DATA", "")
needs_alpaca = pytest.mark.skipif(not ALPACA, reason="TILT_ALPACA_DATA is not set: AlpacaEval's verdicts are not here")


def test_the_seeded_order_depends_on_the_instruction_alone_and_is_even():
    orders = [seeded_order(f"question {number}") for number in range(1000)]
    assert orders == [seeded_order(f"question {number}") for number in range(1000)]
    assert 450 < sum(orders) < 550  # sd = √250 = 16


@needs_alpaca
def test_the_seeded_order_is_the_published_one_for_all_805_instructions():
    with (Path(ALPACA) / "items.csv").open(newline="", encoding="utf-8") as stream:
        items = list(csv.DictReader(stream))
    assert len(items) == 805
    assert [int(seeded_order(item["instruction"])) for item in items] == [int(item["switched"]) for item in items]


def test_a_pair_is_shown_in_both_orders_or_in_one() -> None:
    assert orders("both", "x") == [REFERENCE_FIRST, CANDIDATE_FIRST]
    assert orders("as_is", "x") == [REFERENCE_FIRST]


def test_the_seeded_order_of_a_pair_is_that_of_its_instruction() -> None:
    asked = [f"instruction {i}" for i in range(40)]
    shown = [orders("seeded", text) for text in asked]
    assert all(len(order) == 1 for order in shown)
    assert [order == [CANDIDATE_FIRST] for order in shown] == [seeded_order(text) for text in asked]
    assert {order[0] for order in shown} == {CANDIDATE_FIRST, REFERENCE_FIRST}
