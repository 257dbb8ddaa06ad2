"""What may be spent. The most that a request can cost is set aside before it leaves, so no limit is ever passed."""

import secrets
import threading
from collections.abc import Callable

from stages.errors import BadInput
from stages.servers.ledger import Ledger

FRAMING = 16
"""Tokens that a chat format may add to a message, at most."""


class SpendingStopped(BadInput):
    """No more may be spent. All answers are recorded: another run goes on from there and buys none of them again."""

    exit_code = 3
    """What the command line ends with, so that a script can tell it from a failure (1) and a bad configuration (2)."""


class BudgetReached(SpendingStopped):
    """`max_cost` leaves no room for the next request."""


class QuotaExhausted(SpendingStopped):
    """The account at the server has nothing left."""


def worst_prompt_tokens(messages: list[dict[str, str]]) -> int:
    """The most tokens that the messages can have. No tokeniser makes more tokens than there are bytes."""
    return sum(len(m["content"].encode("utf-8", "replace")) + FRAMING for m in messages) + FRAMING


class Budget:
    """The dollars that one client may spend, and where a ledger is given those of all clients that share it."""

    def __init__(
        self, ceiling: float | None, ledger: Ledger | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """`ceiling` None: no limit, spending is counted all the same. `stopped`: whether to give up waiting."""
        self.ceiling, self.ledger, self.stopped = ceiling, ledger, stopped
        self.spent = 0.0
        self._held: dict[str, float] = {}
        self._changed = threading.Condition()

    def add(self, dollars: float) -> None:
        """Counts what was spent before, on recorded answers or on lost ones. The ledger has it already."""
        with self._changed:
            self.spent += dollars

    def reserve(self, name: str, dollars: float) -> None:
        """Sets aside what a sending can cost at most, under its name. Where it does not fit, this waits while requests
        in flight may turn out cheaper.

        Raises BudgetReached where it does not fit and nothing is in flight any more.
        """
        with self._changed:
            while not self.stopped():
                if not self._fits(dollars):
                    if not self._held:
                        raise BudgetReached("runtime.max_cost", self._stopped(dollars))
                    self._changed.wait()
                elif self.ledger is None or self.ledger.hold(name, self._held.get(name, 0.0) + dollars):
                    self._held[name] = self._held.get(name, 0.0) + dollars
                    return
                elif self._held or self.ledger.busy():
                    self._changed.wait(0.1)  # other processes settle without a word to this one
                else:
                    raise BudgetReached("runtime.max_cost_run", self.ledger.stopped(dollars))

    def fits(self, dollars: float) -> bool:
        """Whether so much could be set aside now."""
        with self._changed:
            return self._fits(dollars) and (self.ledger is None or self.ledger.fits(dollars))

    def require(self, dollars: float) -> None:
        """Raises BudgetReached where so much does not fit. Sets nothing aside."""
        name = f"look ahead {secrets.token_hex(8)}"
        self.reserve(name, dollars)
        self.settle(name, 0.0)

    def commit(self, name: str, dollars: float) -> None:
        """Sets aside, whether it fits or not: what it pays for was sent before."""
        with self._changed:
            self._held[name] = dollars
            if self.ledger is not None:
                self.ledger.commit(name, dollars)

    def settle(self, name: str, dollars: float) -> None:
        """A sending is over and cost `dollars`; the rest of what it had set aside is free again."""
        with self._changed:
            if self._held.pop(name, None) is not None and self.ledger is not None:
                self.ledger.settle(name, dollars)
            self.spent += dollars
            self._changed.notify_all()

    def _fits(self, dollars: float) -> bool:
        return self.ceiling is None or self.spent + sum(self._held.values()) + dollars <= self.ceiling + 1e-12

    def _stopped(self, dollars: float) -> str:
        return (
            f"${self.spent:.4f} of ${self.ceiling:.4f} is spent and the next request may cost ${dollars:.4f}; every "
            "answer so far is recorded: raise this limit and run again, and it goes on from here"
        )
