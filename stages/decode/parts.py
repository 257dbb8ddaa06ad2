"""What a method is made of: a token guide (or none) and a search (or none), which may ask a scorer.

Each is configuration with two verbs: `check` refuses values that no policy could use, and `open` (of a search:
`decode`) loads what it needs. A method is a YAML file that names its parts (`conf/method/`); a new part is a class of
its own that has these methods (docs/extending.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from stages.engine.batch import Watcher
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.errors import BadInput
from stages.records import Prompt

COMPATIBLE = ("", "official")
"""How a part is to behave: as we think right, or as public code does."""


def require_compatible(compat: str, field: str) -> None:
    """Raises BadInput for what is not in `COMPATIBLE`."""
    if compat not in COMPATIBLE:
        raise BadInput(f"{field}.compat", f"{compat!r} is not 'official' or empty")


class TokenGuide(Protocol):
    """Tilts the policy's next-token distribution."""

    def check(self, field: str = "guide") -> None:
        """Raises BadInput for values that no policy could use. `field` is the guide's key in the configuration."""
        ...

    def scaled(self, weight: float) -> Any:
        """The same guide with its strengths times `weight`."""
        ...

    def open(self, lanes: Lanes, sampling: Sampling, field: str = "guide") -> Terms:
        """Loads what the guide needs into `lanes`. Raises BadInput for what does not fit the policy there."""
        ...


class Search(Protocol):
    """Decides between responses."""

    @property
    def selects(self) -> bool:
        """Whether anything is chosen; else the responses are samples."""
        ...

    def check(self, field: str = "search") -> None:
        """Raises BadInput for values that cannot be used."""
        ...

    def kl(self) -> float:
        """An upper bound of KL to the base policy where the base draws, nats; nan where none is known."""
        ...

    def decode(
        self,
        lanes: Lanes,
        draw: Draw,
        terms: Terms,
        prompts: Sequence[Prompt],
        encoded: Sequence[tuple[str, Sequence[int]]],
        samples: int,
        field: str = "search",
    ) -> list[Response]:
        """`samples` responses to each prompt, ordered by prompt, then sample; `encoded` are the prompts as (id, token
        ids of the policy)."""
        ...


@dataclass
class Successor(Response):
    """A row in a search by chunks."""

    draws: int = 1
    """W·K, the draws of a group."""
    slot: int = 0
    """Which of its group's draws it follows."""
    origin: int = 0
    """Its place among all rows at the beginning of the chunk."""
    score: float = math.nan
    ended: bool = False
    """By EOS (not by a stopping string or the limit)."""
    logprobs: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Running log-probabilities of the tuned and the untuned model, where they step anyway."""
    value: float = math.nan

    @property
    def stream(self) -> int:
        return self.sample * self.draws + self.slot


class ChunkStates(NamedTuple):
    """What a lane that forwards whole chunks says of N rows at the end of one."""

    newest: tuple[Tensor, ...]
    """(N, D) each: states after the last token."""
    before: tuple[Tensor, ...]
    """(N, D) each: states before it."""
    last: Tensor
    """(N,) the last token, in the lane's own vocabulary."""
    logprob: list[float]
    """(N,) log-probability of the response so far at temperature 1, nats; empty where no logits were asked for."""
    tokens: list[int]
    """(N,) tokens forwarded."""
    flops: list[float]


class OpenScorer(Watcher[Successor], Protocol):
    """A scorer at work. It watches every step, and is asked at the end of each chunk."""

    name: str

    def scores(
        self, rows: Sequence[Successor], chunk: Mapping[Lane, ChunkStates], asked: Sequence[Prompt]
    ) -> list[float]:
        """(N,), one for each row of the chunk, higher is better.

        `chunk` holds the lanes that forward whole chunks; row i of theirs is the row whose `origin` is i. What scoring
        takes beyond the lanes' forwards is charged to the rows here.
        """
        ...


class Scorer(Protocol):
    """Says what a response so far is worth."""

    def check(self, field: str = "search.scorer") -> None:
        """Raises BadInput for values that cannot be used."""
        ...

    def open(self, lanes: Lanes, field: str = "search.scorer") -> OpenScorer:
        """Loads what the scorer needs into `lanes`. Raises BadInput for what does not fit the policy there."""
        ...
