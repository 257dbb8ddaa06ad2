"""A reward model as a scorer: it reads the text so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.decode.parts import ChunkStates, Successor
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.steering import Choice
from stages.records import Prompt
from stages.reward import Reward, scored, spent


@dataclass
class RewardScorer:
    """Every comparison scores the whole text anew, and is charged for all of it."""

    reward: Reward

    def check(self, field: str = "search.scorer") -> None:
        pass

    def open(self, lanes: Lanes, field: str = "search.scorer") -> "TextRewards":
        return TextRewards(self.reward, field)


class TextRewards:
    keeps_last = False

    def __init__(self, reward: Reward, field: str) -> None:
        self.reward, self.field = reward, field
        self.name = type(reward).__name__

    def chosen(self, rows: Sequence[Successor], choice: Choice) -> None:
        pass

    def stepped(self, rows: Sequence[Successor]) -> None:
        pass

    def scores(
        self, rows: Sequence[Successor], chunk: Mapping[Lane, ChunkStates], asked: Sequence[Prompt]
    ) -> list[float]:
        texts, key = [row.text for row in rows], f"{self.field}.reward"
        found = scored(self.reward, asked, texts, key)  # (N,)
        for row, tokens, flops in zip(rows, *spent(self.reward, asked, texts, key), strict=True):
            row.tokens += int(tokens)
            row.flops += float(flops)
        return found.tolist()
