"""Best-of-N: of n responses the one with the largest reward is returned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.response import Response
from stages.engine.sampling import Draw
from stages.engine.terms import Terms
from stages.errors import BadInput
from stages.records import Prompt
from stages.reward import Reward, scored, spent


@dataclass
class BestOf:
    """The best of n samples of the base, or of a guided policy."""

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
        lanes: Lanes,
        draw: Draw,
        terms: Terms,
        prompts: Sequence[Prompt],
        encoded: Sequence[tuple[str, Sequence[int]]],
        samples: int,
        field: str = "search",
    ) -> list[Response]:
        """`samples` responses a prompt. Raises what `choose` raises."""
        rows = Engine(lanes, draw, terms).run(encoded, samples * self.n, prompts)
        return self.choose(prompts, rows, field)

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
