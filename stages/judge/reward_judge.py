"""The judge that needs no network: the gold reward decides which response is better."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import BadInput
from stages.fields import check_types
from stages.judge.verdicts.order import EITHER
from stages.judge.verdicts.outcomes import IDENTICAL, VERDICT
from stages.judge.verdicts.pair_judge import Session
from stages.judge.verdicts.pairs import Pair
from stages.records import Verdict
from stages.reward import judged_text, require_reward, scored

PORTION = 64
"""Responses scored between two reports of progress."""


@dataclass
class RewardJudge:
    """Prefers the response with the higher reward: 2.0, 1.0, or 1.5 where they differ by no more than `tie`.

    A reward reads each response by itself, so there is no order, and `order` is not used.
    """

    reward: Any
    """A `Reward` that did not guide, select or train anything that is judged."""
    name: str = "reward"
    tie: float = 0.0
    """Difference, in the reward's own unit, up to which neither wins."""

    def check(self) -> None:
        """Raises BadInput where `reward` is no reward, and for a `tie` that is no difference."""
        check_types(self)
        require_reward(self.reward, "reward")
        if not 0 <= self.tie < float("inf"):
            raise BadInput("tie", f"{self.tie} is not a difference, 0 or more")

    def decide(self, pairs: Sequence[Pair], order: str, session: Session) -> list[Verdict]:
        """Raises BadInput for unusable fields, and where the reward's scores are not finite numbers."""
        self.check()
        candidate = self._scores([(p, p.candidate) for p in pairs], session, 0)  # (N,)
        reference = self._scores([(p, p.reference) for p in pairs], session, len(pairs))  # (N,)
        difference = np.where(np.abs(candidate - reference) <= self.tie, 0.0, candidate - reference)
        session.figures |= {"asked": 0, "bought": 0, "spent": 0.0}
        return [
            Verdict(
                prompt_id=pair.prompt.id,
                part=pair.prompt.part,
                sample=pair.sample,
                judge=self.name,
                candidate=pair.candidate_method,
                reference=pair.reference_method,
                canary=pair.canary,
                order=EITHER,
                preference=1.5 + 0.5 * float(np.sign(difference[row])),
                outcome=IDENTICAL if pair.candidate == pair.reference else VERDICT,
                problem="",
                candidate_chars=len(judged_text(pair.prompt, pair.candidate)),
                reference_chars=len(judged_text(pair.prompt, pair.reference)),
                answer=f"{candidate[row]:.6g} against {reference[row]:.6g}",
                asked=0,
                model="",
                prompt_tokens=0,
                completion_tokens=0,
                cost=0.0,
                request="",
            )
            for row, pair in enumerate(pairs)
        ]

    def _scores(self, asked: Sequence[tuple[Pair, str]], session: Session, done: int) -> np.ndarray:
        """(N,) rewards of the given responses."""
        found = []
        for start in range(0, len(asked), PORTION):
            some = asked[start : start + PORTION]
            found.append(scored(self.reward, [p.prompt for p, _ in some], [text for _, text in some], "reward"))
            session.progress(done + start + len(some), 2 * len(asked), self.name)
        return np.concatenate(found) if found else np.zeros(0)
