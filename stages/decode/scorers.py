"""Scorers of a chunk search: what a response so far is worth. All see it at the end of a chunk.

`Implicit` and `Explicit` read what models that step for a guide anyway compute token by token; a model that only scores
forwards the whole chunk at once. `Reward` reads text.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from stages.decode.chunk_lane import Read, logprob
from stages.decode.values import (
    HeadValues,
    VocabValues,
    open_values,
    open_vocab_values,
    require_one_strength,
    require_strength,
    require_transform,
)
from stages.engine.engine import Response
from stages.engine.lanes import Lane, Lanes
from stages.engine.policy import CausalLM
from stages.engine.steering import Choice
from stages.learn.values.vocab_head import is_vocab_head
from stages.records import Prompt
from stages.reward import Reward as RewardModel
from stages.reward import scored, spent


@dataclass
class Row(Response):
    """A successor in a search."""

    slot: int = 0
    """Which of the group's W·K draws it follows."""
    origin: int = 0
    """Its place among all rows at the beginning of the chunk."""
    score: float = math.nan
    ended: bool = False
    """By EOS (not by a stopping string or the limit)."""
    ratio: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Running log-probabilities of the tuned and the untuned model, where they step anyway."""
    value: float = math.nan


class Score(Protocol):
    """A scorer at work."""

    name: str
    keeps_last: bool
    """Whether the state after the token that ends a row is read, so that it has to be forwarded."""

    def chosen(self, rows: Sequence[Row], choice: Choice) -> None:
        """The next tokens are drawn; the lanes that step hold the states before them."""
        ...

    def stepped(self, rows: Sequence[Row]) -> None:
        """The lanes that step hold the states after them (called where `keeps_last`)."""
        ...

    def scores(self, rows: Sequence[Row], read: Mapping[Lane, Read], asked: Sequence[Prompt]) -> list[float]:
        """(N,) of all rows of the chunk; `read` by lane that forwards chunks, in the rows' order of origin. What this
        takes beyond the lanes' forwards is charged to the rows."""
        ...


class ChunkScorer(Protocol):
    """Configuration of a scorer."""

    def check(self, field: str = "search.scorer") -> None: ...

    def open(self, lanes: Lanes, field: str = "search.scorer") -> Score: ...


@dataclass
class Implicit:
    """Weak-to-strong search (arXiv 2405.19262): log π_tuned(y|x) − log π_untuned(y|x), summed over the response so far.

    Log-probabilities at temperature 1, without truncation. A strength β > 0 can't change which beams are kept.
    """

    tuned: CausalLM
    untuned: CausalLM | None = None
    """Null: the policy itself."""

    def check(self, field: str = "search.scorer") -> None:
        pass

    def open(self, lanes: Lanes, field: str = "search.scorer") -> "LogRatioScore":
        tuned = lanes.join(self.tuned, f"{field}.tuned", eager=False)
        untuned = lanes.join(self.untuned, f"{field}.untuned", eager=False)
        tuned.wants_logits = untuned.wants_logits = True
        return LogRatioScore(tuned, untuned)


class LogRatioScore:
    keeps_last = False

    def __init__(self, tuned: Lane, untuned: Lane) -> None:
        self.lanes = (tuned, untuned)
        self.name = f"log-ratio of {tuned.policy.folder} and {untuned.policy.folder}"

    def chosen(self, rows: Sequence[Row], choice: Choice) -> None:
        for place, lane in enumerate(self.lanes):
            if lane.eager:
                assert lane.logits is not None
                for row, one in zip(rows, logprob(lane.logits, choice.token.to(lane.device)).tolist(), strict=True):
                    row.ratio[place] += one

    def stepped(self, rows: Sequence[Row]) -> None:
        pass

    def scores(self, rows: Sequence[Row], read: Mapping[Lane, Read], asked: Sequence[Prompt]) -> list[float]:
        sums = [
            [row.ratio[place] for row in rows] if lane.eager else [read[lane].logprob[row.origin] for row in rows]
            for place, lane in enumerate(self.lanes)
        ]
        return [tuned - untuned for tuned, untuned in zip(*sums, strict=True)]


@dataclass
class Explicit:
    """A value model's estimate for the response so far (arXiv 2409.17819): V(s) after the last token of a scalar head,
    Q(prefix)[last token] of a vocabulary-wide one."""

    folder: Path
    """A value model's folder."""
    model: CausalLM | None = None
    """The model whose states the head reads; null: the policy's, or the folder `model/` beside the head. It may have
    another vocabulary than the policy: it then reads the text."""
    reward: str | list[str] | None = None
    weights: float | list[float] = 1.0
    """Of several rewards, one each."""
    transform: str = "identity"

    def check(self, field: str = "search.scorer") -> None:
        require_strength(self.weights, f"{field}.weights")
        require_transform(self.transform, field)

    def open(self, lanes: Lanes, field: str = "search.scorer") -> "ValueScore":
        folder = Path(self.folder)
        if is_vocab_head(folder):
            weight = require_one_strength(self.weights, f"{field}.weights")
            wide = open_vocab_values(
                lanes,
                folder,
                self.model,
                weight,
                self.transform,
                None,
                "mean",
                field,
                eager=False,
                reward=self.reward,
            )
            return ValueScore(wide, f"value of {folder}")
        values = open_values(
            lanes,
            folder,
            self.model,
            self.reward,
            self.weights,
            self.transform,
            field,
            eager=False,
            key="weights",
        )
        return ValueScore(values, f"value of {folder}")


class ValueScore:
    def __init__(self, values: HeadValues | VocabValues, name: str) -> None:
        self.values, self.lane, self.name = values, values.lane, name
        self.wide = isinstance(values, VocabValues)
        self.flops = values.token_flops if isinstance(values, VocabValues) else values.flops
        """Of one value."""
        self.keeps_last = self.lane.eager and not self.wide

    def chosen(self, rows: Sequence[Row], choice: Choice) -> None:
        if self.wide and self.lane.eager:
            self._write(rows, self._of_tokens(self.lane.read, choice.token.to(self.lane.device)))

    def stepped(self, rows: Sequence[Row]) -> None:
        if self.lane.eager and not self.wide:
            self._write(rows, self.values.values(self.lane.read))

    def _write(self, rows: Sequence[Row], values: torch.Tensor) -> None:
        for row, value in zip(rows, values.tolist(), strict=True):
            row.value = value
            row.flops += self.flops

    def _of_tokens(self, read: tuple[torch.Tensor, ...], token: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.values, VocabValues)
        return self.values.of(read, token)

    def scores(self, rows: Sequence[Row], read: Mapping[Lane, Read], asked: Sequence[Prompt]) -> list[float]:
        if self.lane.eager:
            return [row.value for row in rows]
        found = read[self.lane]
        values = self._of_tokens(found.before, found.last) if self.wide else self.values.values(found.newest)
        by_origin = values.tolist()
        for row in rows:
            row.flops += self.flops
        return [by_origin[row.origin] for row in rows]


@dataclass
class Reward:
    """A reward model on the text so far: every comparison scores it anew, and is charged for all of it."""

    reward: RewardModel

    def check(self, field: str = "search.scorer") -> None:
        pass

    def open(self, lanes: Lanes, field: str = "search.scorer") -> "TextScore":
        return TextScore(self.reward, field)


class TextScore:
    keeps_last = False

    def __init__(self, reward: Any, field: str) -> None:
        self.reward, self.field = reward, field
        self.name = type(reward).__name__

    def chosen(self, rows: Sequence[Row], choice: Choice) -> None:
        pass

    def stepped(self, rows: Sequence[Row]) -> None:
        pass

    def scores(self, rows: Sequence[Row], read: Mapping[Lane, Read], asked: Sequence[Prompt]) -> list[float]:
        texts, key = [row.text for row in rows], f"{self.field}.reward"
        found = scored(self.reward, asked, texts, key)
        for row, tokens, flops in zip(rows, *spent(self.reward, asked, texts, key), strict=True):
            row.tokens += int(tokens)
            row.flops += float(flops)
        return found.tolist()
