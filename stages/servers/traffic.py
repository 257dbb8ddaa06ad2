"""How requests travel to a server: at what rate, with what patience, for how much money. Not part of a stage's key."""

from dataclasses import dataclass

from stages.errors import BadInput
from stages.fields import check_types


@dataclass
class Traffic:
    """Settings that change when and how requests are sent, but not what is answered."""

    concurrency: int = 8
    """Requests in flight at once. If the process is killed, at most so many answers are bought twice."""
    rpm: int | None = None
    """Requests a minute; null: no limit."""
    tpm: int | None = None
    """Tokens a minute, prompt and answer; null: no limit."""
    max_cost: float | None = None
    """US dollars that may be spent here, with the cost of answers that are recorded already; null: no limit."""
    max_cost_run: float | None = None
    """US dollars that all who share `account` may spend together, in all their runs; null: no limit."""
    account: str = ""
    """Name under which spending is added up over stages and processes; empty: it is not added up."""
    timeout: float = 120.0
    """Seconds a request may take."""
    attempts: int = 8
    """How often one request is sent before it counts as unreachable."""
    longest_wait: float = 60.0
    """Seconds between two attempts at most; a server's own Retry-After may ask for more."""
    batch: bool = False
    """Through the Batch API: half the price, within a day."""
    poll: float = 30.0
    """Seconds between two looks at a batch."""

    def __post_init__(self) -> None:
        if isinstance(self.account, int | float):  # a run may be named 2026
            self.account = str(self.account)

    def check(self) -> None:
        """Raises BadInput, with `runtime.` before the field, for numbers that make no sense."""
        check_types(self, "runtime.")
        for name in ("concurrency", "rpm", "tpm", "timeout", "attempts", "poll"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise BadInput(f"runtime.{name}", f"{value} is not a positive number")
        if self.longest_wait < 0:
            raise BadInput("runtime.longest_wait", f"{self.longest_wait} is not a number of seconds, 0 or more")
        for name in ("max_cost", "max_cost_run"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise BadInput(f"runtime.{name}", f"{value} is not a number of dollars, 0 or more")
        if self.max_cost_run is not None and not self.account:
            raise BadInput("runtime.account", "is empty; name the account that max_cost_run is a limit of")
