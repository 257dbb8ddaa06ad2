"""Chunk-level beam search as it is configured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stages.decode.chunk import Chunks
from stages.decode.parts import Scorer, require_compatible
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.response import Response
from stages.engine.sampling import Draw
from stages.engine.terms import Terms
from stages.errors import BadInput
from stages.records import Prompt


@dataclass
class ChunkSearch:
    """W beams, K successors each, compared every L tokens by a scorer (`chunk.py`).

    Token-wise guides draw the successors. W = 1 is blockwise best-of-K (arXiv 2310.17022); one beam and one successor,
    or no scorer, is sampling.
    """

    beams: int = 4
    """W."""
    successors: int = 4
    """K, of each beam; the first chunk draws W·K of the prompt."""
    chunk: int | None = 5
    """L, tokens; null: compared at the end alone (Best-of-W·K)."""
    scorer: Scorer | None = None
    """Null: nothing is compared."""
    length_normalised: bool = False
    """Compare score ÷ tokens."""
    compat: str = ""
    """`official`: ended beams are cloned and crowd out the rest, as in public code."""

    def check(self, field: str = "search") -> None:
        for name, what in (("beams", "beams"), ("successors", "successors of a beam"), ("chunk", "tokens")):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise BadInput(f"{field}.{name}", f"{size} is not a positive number of {what}")
        require_compatible(self.compat, field)
        if self.scorer is not None:
            self.scorer.check(f"{field}.scorer")

    @property
    def selects(self) -> bool:
        return self.scorer is not None and self.beams * self.successors > 1

    def kl(self) -> float:
        """No closed form or bound is known."""
        return math.nan

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
        """`samples` responses a prompt. Raises BadInput for what the scorer refuses."""
        chunks = None
        if self.selects and self.scorer is not None:
            chunks = Chunks(
                self.scorer.open(lanes, f"{field}.scorer"),
                beams=self.beams,
                successors=self.successors,
                chunk=self.chunk,
                length_normalised=self.length_normalised,
                official=self.compat == "official",
            )
        return Engine(lanes, draw, terms).run(encoded, samples, prompts, schedule=chunks)
