"""What a model costs, from a dated table; nothing is guessed."""

import pytest

from stages.errors import BadInput
from stages.judge.asking.cost import expected_cost
from stages.servers.prices import Price, price_of


def test_unknown_prices_are_said_to_be_unknown() -> None:
    table = {"as_of": "2026-01", "models": {"known": {"input": 1.0, "output": 2.0, "batch": 0.5}}}
    assert price_of("known-2", table) is None  # no guessing from a prefix
    assert price_of("known", None) is None
    assert price_of("known", table) == Price(1.0, 2.0, 0.5)
    unknown = expected_cost({"model": "known-2", "prices": table, "max_tokens": 1}, items=10)
    assert (unknown.requests, unknown.dollars) == (20, None)
    assert "no price is known for known-2" in unknown.note
    with pytest.raises(BadInput, match=r"prices\.models\.known"):
        price_of("known", {"models": {"known": {"input": -1.0, "output": 2.0}}})
