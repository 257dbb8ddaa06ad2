"""A judge with an order and a number of null models of its own, where several judges decide the same pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.errors import BadInput
from stages.fields import check_types

ORDERS = ("both", "seeded", "as_is")


@dataclass
class Seat:
    """What the stage's `order` and `canary` are to its other judges, these are to this one."""

    judge: Any
    """`ApiJudge` or `RewardJudge`."""
    order: str = "both"
    """`both` (each pair twice), `seeded` (AlpacaEval's draw from the instruction), `as_is` (reference first)."""
    canary: int = 20
    """Prompts for which a null model, too, is held against the reference: a sound judge lets it lose. 0: none."""

    @classmethod
    def of(cls, given: Any, order: str, canary: int) -> "Seat":
        """A seat as it is, or as the mapping of its fields that it still is while planning; a bare judge takes one."""
        if isinstance(given, Seat):
            return given
        if isinstance(given, Mapping) and "judge" in given:
            return cls(**{name: value for name, value in given.items() if name != "_target_"})
        return cls(given, order, canary)

    def check(self, above: str = "") -> None:
        """Raises BadInput where one of the two is unusable, with `above` before the field's name."""
        if self.order not in ORDERS:
            raise BadInput(f"{above}order", f"{self.order!r} is none of {', '.join(ORDERS)}")
        check_types(self, above)
        if self.canary < 0:
            raise BadInput(f"{above}canary", f"{self.canary} is not a number of prompts, 0 or more")
