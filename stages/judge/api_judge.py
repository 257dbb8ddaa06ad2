"""The judge that asks a model over the network. What speaks to the network is imported at the first verdict only."""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.judge.asking.judge_model import JudgeModel
from stages.judge.verdicts.pair_judge import Session
from stages.judge.verdicts.pairs import Pair
from stages.records import Verdict


@dataclass
class ApiJudge(JudgeModel):
    """Compares two responses by asking a model. Raises BadInput for unusable fields, and by its preflight."""

    def decide(self, pairs: Sequence[Pair], order: str, session: Session) -> list[Verdict]:
        """Asks for every pair in every order. Raises BadInput (preflight, key, model), SpendingStopped, Unreachable."""
        from stages.judge.asking.questions import Asking

        self.check()
        return Asking(self, session).decide(pairs, order)
