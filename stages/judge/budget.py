"""What judging costs: dated prices, the worst case of a request before it leaves, an estimate without any network.

Nothing heavy is imported here, so that a plan can price a judge before anything has run.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.errors import BadInput

CHARACTERS_A_TOKEN = 4
"""For estimates only: what English text comes to."""
FRAMING = 16
"""Tokens a chat format may add to a message, for worst cases."""


class SpendingStopped(BadInput):
    """No more may be spent. What was answered is recorded: running again goes on from there and buys none twice."""

    exit_code = 3
    """What the command line ends with, so that a script can tell it from a failure (1) and a bad configuration (2)."""


class BudgetReached(SpendingStopped):
    """`max_cost` leaves no room for the next request."""


class QuotaExhausted(SpendingStopped):
    """The account at the server has nothing left."""


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
    entry = ((prices or {}).get("models") or {}).get(model)
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


def worst_prompt_tokens(messages: list[dict[str, str]]) -> int:
    """At most so many tokens: tokenisers of bytes never make more tokens than there are bytes."""
    return sum(len(m["content"].encode("utf-8", "replace")) + FRAMING for m in messages) + FRAMING


class Budget:
    """Dollars of one judge in one execution; the worst case of every request is set aside before it leaves."""

    def __init__(self, ceiling: float | None) -> None:
        """`ceiling` None: no limit, spending is counted all the same."""
        self.ceiling = ceiling
        self.spent = 0.0
        self._reserved = 0.0
        self._changed = threading.Condition()

    def add(self, dollars: float) -> None:
        """Spent already: by recorded answers, or on requests whose answers were lost."""
        with self._changed:
            self.spent += dollars

    def reserve(self, dollars: float) -> None:
        """Sets a worst case aside; waits while requests in flight may still turn out cheaper.

        Raises BudgetReached where it does not fit and nothing is in flight any more.
        """
        with self._changed:
            while not self._fits(dollars):
                if self._reserved <= 1e-12:
                    raise BudgetReached("runtime.max_cost", self._stopped(dollars))
                self._changed.wait()
            self._reserved += dollars

    def fits(self, dollars: float) -> bool:
        """Whether a worst case could be set aside now."""
        with self._changed:
            return self._fits(dollars)

    def require(self, dollars: float) -> None:
        """Raises BudgetReached where a worst case does not fit; sets nothing aside."""
        self.reserve(dollars)
        self.settle(dollars, 0.0)

    def commit(self, dollars: float) -> None:
        """Sets aside what was handed over before: it is too late to refuse."""
        with self._changed:
            self._reserved += dollars

    def settle(self, reserved: float, dollars: float) -> None:
        """A request is over: `dollars` were spent of what it had set aside."""
        with self._changed:
            self._reserved = max(0.0, self._reserved - reserved)
            self.spent += dollars
            self._changed.notify_all()

    def _fits(self, dollars: float) -> bool:
        return self.ceiling is None or self.spent + self._reserved + dollars <= self.ceiling + 1e-12

    def _stopped(self, dollars: float) -> str:
        return (
            f"${self.spent:.4f} of ${self.ceiling:.4f} is spent and the next request may cost ${dollars:.4f}; every "
            "answer so far is recorded: raise max_cost and run again, and it goes on from here"
        )


@dataclass(frozen=True)
class Estimate:
    """What a judge will be asked and may cost."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None
    """None: the price is unknown, and `note` says so."""
    note: str


def estimate(
    judge: Mapping[str, Any],
    *,
    items: int,
    order: str = "both",
    canary: int = 0,
    instruction_characters: float = 250,
    output_characters: float = 1000,
    template_characters: float = 1500,
) -> Estimate:
    """Requests, tokens and dollars of one judge, from its configuration and sizes; several judges add up.

    `judge`: the fields of an `ApiJudge`; a judge without a `model` (the reward) asks nobody. `items`: pairs of
    responses. `canary`: pairs with the null model. Characters are means, of the instruction, of *one* output and of the
    template with its answer format; a token is taken as 4 characters. Answers are priced at their limit, re-asking is
    not foreseen.

    >>> table = {"as_of": "2026-04", "models": {"some-judge": {"input": 10.0, "output": 30.0}}}
    >>> e = estimate({"model": "some-judge", "prices": table, "max_tokens": 1}, items=805, order="seeded")
    >>> e.requests, e.prompt_tokens, e.dollars  # 805 · (250 + 2·1000 + 1500) / 4 tokens in, 805 out
    (805, 754688, 7.57103)
    """
    model = judge.get("model")
    if not model:
        return Estimate(0, 0, 0, 0.0, "no requests")
    requests = (items + canary) * (2 if order == "both" else 1)
    prompt = round(
        requests * (instruction_characters + 2 * output_characters + template_characters) / CHARACTERS_A_TOKEN
    )
    completion = requests * int(judge.get("max_tokens") or 0)
    table = judge.get("prices")
    price = price_of(str(model), table)
    if price is None:
        return Estimate(requests, prompt, completion, None, f"no price is known for {model}: no estimate in dollars")
    batch = bool((judge.get("runtime") or {}).get("batch"))
    as_of = (table or {}).get("as_of", "an unknown date")
    return Estimate(
        requests,
        prompt,
        completion,
        price.of(prompt, completion, batch=batch),
        f"prices of {as_of}; at 4 characters a token",
    )
