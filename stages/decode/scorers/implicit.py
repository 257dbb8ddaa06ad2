"""The implicit value of a tuned model as a scorer: weak-to-strong search (arXiv 2405.19262)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.decode.parts import ChunkStates, Successor
from stages.engine.causal_lm import CausalLM
from stages.engine.distribution import token_logprob
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.steering import Choice
from stages.records import Prompt


@dataclass
class ImplicitScorer:
    """log π_tuned(y|x) − log π_untuned(y|x), summed over the response so far.

    Log-probabilities at temperature 1, without truncation. A strength β > 0 can't change which beams are kept.
    """

    tuned: CausalLM
    untuned: CausalLM | None = None
    """Null: the policy itself."""

    def check(self, field: str = "search.scorer") -> None:
        pass

    def open(self, lanes: Lanes, field: str = "search.scorer") -> "LogRatios":
        tuned = lanes.join(self.tuned, f"{field}.tuned", eager=False)
        untuned = lanes.join(self.untuned, f"{field}.untuned", eager=False)
        tuned.wants_logits = untuned.wants_logits = True
        return LogRatios(tuned, untuned)


class LogRatios:
    """Sums what models that step anyway say of each token; of others, what they say of the whole chunk."""

    keeps_last = False

    def __init__(self, tuned: Lane, untuned: Lane) -> None:
        self.lanes = (tuned, untuned)
        self.name = f"log-ratio of {tuned.lm.folder} and {untuned.lm.folder}"

    def chosen(self, rows: Sequence[Successor], choice: Choice) -> None:
        for place, lane in enumerate(self.lanes):
            if lane.eager:
                assert lane.logits is not None
                found = token_logprob(lane.logits, choice.token.to(lane.device))  # (R,)
                for row, one in zip(rows, found.tolist(), strict=True):
                    row.logprobs[place] += one

    def stepped(self, rows: Sequence[Successor]) -> None:
        pass

    def scores(
        self, rows: Sequence[Successor], chunk: Mapping[Lane, ChunkStates], asked: Sequence[Prompt]
    ) -> list[float]:
        sums = [
            [row.logprobs[place] for row in rows] if lane.eager else [chunk[lane].logprob[row.origin] for row in rows]
            for place, lane in enumerate(self.lanes)
        ]
        return [tuned - untuned for tuned, untuned in zip(*sums, strict=True)]
