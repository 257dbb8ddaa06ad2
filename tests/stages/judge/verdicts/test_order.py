"""The order in which a judge sees two responses."""

import csv
import os
from pathlib import Path

import pytest

from stages.judge.verdicts.order import seeded_order

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
