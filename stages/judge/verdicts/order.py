"""The order in which a judge sees the two responses of a pair: judges favour a place, so each verdict names it."""

import random

CANDIDATE_FIRST, REFERENCE_FIRST = "candidate_first", "reference_first"
EITHER = "either"
"""The judge reads each response by itself, so there is no order."""


def orders(order: str, instruction: str) -> list[str]:
    """The orders in which a pair is shown, one question each. `order`: `both`; `seeded`, drawn from the instruction;
    `as_is`, the reference first.

    >>> orders("both", "Name a river.")
    ['reference_first', 'candidate_first']
    """
    if order == "both":
        return [REFERENCE_FIRST, CANDIDATE_FIRST]
    return [CANDIDATE_FIRST if order == "seeded" and seeded_order(instruction) else REFERENCE_FIRST]


def seeded_order(instruction: str) -> bool:
    """True: the candidate is shown first. AlpacaEval draws this from the instruction alone.

    Source: `alpaca_eval` draws from `random.Random(seed + instruction + "0")` with the column's name as the seed.
    """
    return random.Random("is_switched_outputs" + instruction + "0").choices([False, True])[0]
