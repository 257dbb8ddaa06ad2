"""Requests and tokens a minute: each sending waits until it fits into the last 60 seconds."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

MARGIN = 1.05
"""The window is 5 % longer here: the server counts when requests arrive, and some travel longer than others."""


@dataclass(eq=False)
class Ticket:
    """One sending: when it left and the tokens it counts for, worst case until `settle`."""

    time: float
    tokens: int
    counted: bool = False
    """Whether it still lies in the window."""


class Limits:
    """A sliding window over what was sent. Each process has its own: where several share a key, divide the limits."""

    def __init__(
        self,
        rpm: int | None = None,
        tpm: int | None = None,
        *,
        window: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rpm`, `tpm`: requests and tokens in `window` seconds; None is no limit."""
        self.rpm, self.tpm, self.window, self._clock = rpm, tpm, window * MARGIN, clock
        self._sent: deque[Ticket] = deque()
        self._tokens = 0
        self._not_before = 0.0
        self._changed = threading.Condition()

    def acquire(self, tokens: int, stopped: Callable[[], bool] = lambda: False) -> Ticket:
        """Waits until a request of at most `tokens` tokens may leave; returns at once when `stopped()`.

        A request of more tokens than the limit leaves when nothing else is in the window.
        """
        with self._changed:
            while (wait := self._wait(tokens)) > 0 and not stopped():
                self._changed.wait(min(wait, 0.5))
            ticket = Ticket(self._clock(), tokens)
            if self.rpm is not None or self.tpm is not None:
                ticket.counted = True
                self._sent.append(ticket)
                self._tokens += tokens
            return ticket

    def settle(self, ticket: Ticket, tokens: int) -> None:
        """The server counted `tokens`: what was set aside beyond that is free again."""
        with self._changed:
            if ticket.counted:
                self._tokens += tokens - ticket.tokens
            ticket.tokens = tokens
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Nothing leaves for so many seconds, because the server asked for that."""
        with self._changed:
            self._not_before = max(self._not_before, self._clock() + seconds)

    def _wait(self, tokens: int) -> float:
        """Seconds until there is room; 0 or less: now."""
        now = self._clock()
        while self._sent and self._sent[0].time <= now - self.window:
            oldest = self._sent.popleft()
            oldest.counted = False
            self._tokens -= oldest.tokens
        quiet = self._not_before - now
        if not self._sent:
            return quiet
        full = self.rpm is not None and len(self._sent) >= self.rpm
        heavy = self.tpm is not None and self._tokens + tokens > self.tpm
        return max(quiet, self._sent[0].time + self.window - now) if full or heavy else quiet
