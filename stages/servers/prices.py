"""What a model's tokens cost, from a dated table of prices. A model that is not in it has no price: none is guessed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.errors import BadInput


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens."""

    input: float
    output: float
    batch: float = 1.0
    """What the Batch API takes of these prices: 0.5 is half."""

    def of(self, prompt_tokens: int, completion_tokens: int, *, batch: bool = False) -> float:
        """Dollars.

        >>> Price(input=2.0, output=8.0).of(1_000_000, 500_000)  # 1 · 2 + 0.5 · 8
        6.0
        """
        dollars = (prompt_tokens * self.input + completion_tokens * self.output) / 1e6
        return dollars * self.batch if batch else dollars


def price_of(model: str, prices: Mapping[str, Any] | None) -> Price | None:
    """The model's price in a table `{as_of: date, models: {name: {input, output, batch}}}`; None where it is unknown.

    Raises BadInput for `prices` that are no such table.
    """
    table = (prices or {}).get("models") or {} if isinstance(prices, Mapping | None) else None
    if not isinstance(table, Mapping):
        raise BadInput("prices", "is no table {as_of, models: {name: {input, output, batch}}}")
    entry = table.get(model)
    if entry is None:
        return None
    try:
        price = Price(**{name: float(value) for name, value in entry.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"prices.models.{model}", "is not {input, output, batch} in dollars for a million tokens"
        ) from error
    if not all(math.isfinite(value) and value >= 0 for value in vars(price).values()):
        raise BadInput(f"prices.models.{model}", "a price is a finite number of dollars, 0 or more")
    return price
