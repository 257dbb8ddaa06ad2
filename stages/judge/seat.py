"""One of several judges of the same pairs, with an order and a number of canaries of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.errors import BadInput
from stages.fields import check_types

ORDERS = ("both", "seeded", "as_is")


@dataclass
class Seat:
    """A judge with its own `order` and `canary`, which it uses instead of those of the stage `Judge`."""

    judge: Any
    """`ApiJudge` or `RewardJudge`."""
    order: str = "both"
    """`both` (each pair twice), `seeded` (AlpacaEval's draw from the instruction), `as_is` (reference first)."""
    canary: int = 20
    """Number of prompts on which a null model is judged too; a sound judge lets it lose. 0: none."""

    @classmethod
    def of(cls, given: Any, order: str, canary: int) -> "Seat":
        """The seat of a judge as the configuration gives it: a seat stays what it is; a mapping of a seat's fields, as
        it is while a plan is made, becomes a seat; a judge without one gets a seat with `order` and `canary`."""
        if isinstance(given, Seat):
            return given
        if isinstance(given, Mapping) and "judge" in given:
            return cls(**{name: value for name, value in given.items() if name != "_target_"})
        return cls(given, order, canary)

    def check(self, above: str = "") -> None:
        """Raises BadInput where `order` or `canary` cannot be used; the field's name comes after `above`."""
        if self.order not in ORDERS:
            raise BadInput(f"{above}order", f"{self.order!r} is none of {', '.join(ORDERS)}")
        check_types(self, above)
        if self.canary < 0:
            raise BadInput(f"{above}canary", f"{self.canary} is not a number of prompts, 0 or more")
