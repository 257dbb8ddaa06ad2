"""Chunk search: which of several samples of a prompt is returned. Here W = 1, K = N, L = ∞: Best-of-N."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stages.decode.engine import Response
from stages.errors import BadInput
from stages.records import Prompt
from stages.reward import Reward


@dataclass
class BestOf:
    """Best-of-N: of n samples of the base (or of a guided policy) the one with the largest reward is returned."""

    n: int
    reward: Reward

    def check(self, field: str = "search") -> None:
        if self.n < 1:
            raise BadInput(f"{field}.n", f"{self.n} is not a positive number of samples")

    def kl(self) -> float:
        """log n − (n−1)/n nats: an upper bound of KL(best of n ‖ base) (arXiv 2401.01879).

        Example: n = 16 → 2.7726 − .9375 = 1.8351.
        """
        return math.log(self.n) - (self.n - 1) / self.n

    def choose(self, prompts: Sequence[Prompt], rows: Sequence[Response], field: str = "search") -> list[Response]:
        """Of rows s·n … s·n + n − 1 of a prompt the best becomes its sample s; the first where rewards are equal.

        `rows` are ordered by prompt, then sample, so that the rows of n = 2 are the first rows of n = 4. Tokens, FLOPs
        and seconds of all n count. `logprob` is nan for n > 1: the selected policy's probability of a text is unknown.
        Raises FloatingPointError where the reward is not finite, BadInput (under `field`.reward) where it refuses.
        """
        asked = [prompts[row.prompt] for row in rows]
        try:
            rewards = np.asarray(self.reward.score(asked, [row.text for row in rows]), dtype=np.float64)  # (N,)
        except BadInput as error:
            raise BadInput(f"{field}.reward.{error.field}", error.problem) from error
        if not np.isfinite(rewards).all():
            bad = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise FloatingPointError(
                f"{type(self.reward).__name__}: reward is not finite for prompt {asked[bad].id!r}, "
                f"sample {rows[bad].sample}"
            )
        chosen = []
        for first in range(0, len(rows), self.n):
            group = rows[first : first + self.n]
            best = group[int(np.argmax(rewards[first : first + self.n]))]
            chosen.append(
                replace(
                    best,
                    sample=group[0].sample // self.n,
                    logprob=best.logprob if self.n == 1 else math.nan,
                    tokens=sum(row.tokens for row in group),
                    flops=sum(row.flops for row in group),
                    seconds=sum(row.seconds for row in group),
                )
            )
        return chosen
