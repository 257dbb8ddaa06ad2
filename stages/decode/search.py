"""Searches over responses: Best-of-N, and chunk-level beam search, of which it is W = 1, K = N, L = ∞."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from stages.decode.chunk import ChunkEngine
from stages.decode.guides import COMPATIBLE
from stages.decode.scorers import ChunkScorer
from stages.engine.engine import Engine, Response
from stages.engine.lanes import Lanes
from stages.engine.policy import Policy
from stages.engine.sampling import Sampling
from stages.engine.steering import Terms
from stages.errors import BadInput
from stages.records import Prompt
from stages.reward import Reward, scored, spent


class Search(Protocol):
    """What decides between responses."""

    def check(self, field: str = "search") -> None:
        """Raises BadInput for values that cannot be used."""
        ...

    @property
    def selects(self) -> bool:
        """Whether anything is chosen; else the responses are samples."""
        ...

    def kl(self) -> float:
        """An upper bound of KL to the base policy where the base draws, nats; nan where none is known."""
        ...

    def decode(
        self,
        policy: Policy,
        sampling: Sampling,
        terms: Terms,
        prompts: Sequence[Prompt],
        encoded: Sequence[tuple[str, Sequence[int]]],
        *,
        samples: int,
        seed: int,
        rows: int,
        progress: Callable[..., None] | None = None,
        field: str = "search",
    ) -> list[Response]: ...


@dataclass
class BestOf:
    """Best-of-N: of n samples of the base (or of a guided policy) the one with the largest reward is returned."""

    n: int
    reward: Reward
    selects = True

    def check(self, field: str = "search") -> None:
        if self.n < 1:
            raise BadInput(f"{field}.n", f"{self.n} is not a positive number of samples")

    def kl(self) -> float:
        """log n − (n−1)/n nats: an upper bound of KL(best of n ‖ base) (arXiv 2401.01879).

        Example: n = 16 → 2.7726 − .9375 = 1.8351.
        """
        return math.log(self.n) - (self.n - 1) / self.n

    def decode(
        self,
        policy: Policy,
        sampling: Sampling,
        terms: Terms,
        prompts: Sequence[Prompt],
        encoded: Sequence[tuple[str, Sequence[int]]],
        *,
        samples: int,
        seed: int,
        rows: int,
        progress: Callable[..., None] | None = None,
        field: str = "search",
    ) -> list[Response]:
        """`samples` responses a prompt: n times as many rows, which enter and leave on their own, then the choice."""
        engine = Engine(policy, sampling, terms, seed=seed, rows=rows, progress=progress)
        return self.choose(prompts, engine.run(encoded, samples * self.n, prompts), field)

    def choose(self, prompts: Sequence[Prompt], rows: Sequence[Response], field: str = "search") -> list[Response]:
        """Of rows s·n … s·n + n − 1 of a prompt the best becomes its sample s; the first where rewards are equal.

        `rows` are ordered by prompt, then sample, so that the rows of n = 2 are the first rows of n = 4. Tokens, FLOPs
        and seconds of all n count, and what scoring them takes (`reward.spent`); one row is not scored. `logprob` is
        nan for n > 1: the selected policy's probability of a text is unknown.
        Raises what `reward.scored` raises, under `field`.reward.
        """
        if self.n == 1:
            return list(rows)
        asked, texts, key = [prompts[row.prompt] for row in rows], [row.text for row in rows], f"{field}.reward"
        rewards = scored(self.reward, asked, texts, key)  # (N,)
        tokens, flops = spent(self.reward, asked, texts, key)  # (N,) each
        chosen = []
        for first in range(0, len(rows), self.n):
            places = slice(first, first + self.n)
            group = rows[places]
            best = group[int(np.argmax(rewards[places]))]
            chosen.append(
                replace(
                    best,
                    sample=group[0].sample // self.n,
                    logprob=math.nan,
                    tokens=sum(row.tokens for row in group) + int(tokens[places].sum()),
                    flops=sum(row.flops for row in group) + float(flops[places].sum()),
                    seconds=sum(row.seconds for row in group),
                )
            )
        return chosen


@dataclass
class ChunkSearch:
    """W beams, K successors each, compared every L tokens by a scorer (`chunk.py`, `scorers.py`).

    Token-wise guides draw the successors. W = 1 is blockwise best-of-K (arXiv 2310.17022); one beam and one successor,
    or no scorer, is sampling.
    """

    beams: int = 4
    """W."""
    successors: int = 4
    """K, of each beam; the first chunk draws W·K of the prompt."""
    chunk: int | None = 5
    """L, tokens; null: compared at the end alone (Best-of-W·K)."""
    scorer: ChunkScorer | None = None
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
        if self.compat not in COMPATIBLE:
            raise BadInput(f"{field}.compat", f"{self.compat!r} is not 'official' or empty")
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
        policy: Policy,
        sampling: Sampling,
        terms: Terms,
        prompts: Sequence[Prompt],
        encoded: Sequence[tuple[str, Sequence[int]]],
        *,
        samples: int,
        seed: int,
        rows: int,
        progress: Callable[..., None] | None = None,
        field: str = "search",
    ) -> list[Response]:
        """`samples` responses a prompt. Raises BadInput for what the scorer refuses."""
        terms.lanes = terms.lanes or Lanes(policy)
        if not self.selects or self.scorer is None:
            engine = Engine(policy, sampling, terms, seed=seed, rows=rows, progress=progress)
            return engine.run(encoded, samples, prompts)
        score = self.scorer.open(terms.lanes, f"{field}.scorer")
        engine = ChunkEngine(
            policy,
            sampling,
            terms,
            score,
            beams=self.beams,
            successors=self.successors,
            chunk=self.chunk,
            length_normalised=self.length_normalised,
            official=self.compat == "official",
            seed=seed,
            rows=rows,
            progress=progress,
        )
        return engine.run(encoded, samples, prompts)
