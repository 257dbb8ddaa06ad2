"""A value model as a scorer (arXiv 2409.17819): what it expects of the response so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stages.decode.parts import ChunkStates, OpenScorer, Successor
from stages.decode.values.scalar import HeadValues, open_values
from stages.decode.values.settings import require_one_strength, require_strength, require_transform
from stages.decode.values.vocab import VocabValues, open_vocab_values
from stages.engine.causal_lm import CausalLM
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.steering import Choice
from stages.learn.values.vocab_head import is_vocab_head
from stages.records import Prompt


@dataclass
class ExplicitScorer:
    """V(s) after the last token of a scalar head, Q(prefix)[last token] of one over the vocabulary."""

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

    def open(self, lanes: Lanes, field: str = "search.scorer") -> OpenScorer:
        """Raises BadInput for rewards and weights that do not match, a head of another trunk or vocabulary."""
        folder, model, reward = Path(self.folder), self.model, self.reward
        if is_vocab_head(folder):
            weight = require_one_strength(self.weights, f"{field}.weights")
            wide = open_vocab_values(lanes, folder, model, self.transform, field, eager=False, reward=reward)
            return TokenValues(wide, weight)
        values = open_values(
            lanes, folder, model, reward, self.weights, self.transform, field, eager=False, key="weights"
        )
        return StateValues(values)


class StateValues:
    """Σ w·V(s), read after the last token."""

    def __init__(self, values: HeadValues) -> None:
        self.values, self.lane, self.name = values, values.lane, f"value of {values.name}"
        self.keeps_last = self.lane.eager

    def _of(self, states: tuple[Tensor, ...]) -> list[float]:
        """(R,) of states (R, D)."""
        values = self.values.values(states)  # (R, M)
        return (values @ values.new_tensor(self.values.betas)).tolist()

    def chosen(self, rows: Sequence[Successor], choice: Choice) -> None:
        pass

    def stepped(self, rows: Sequence[Successor]) -> None:
        if self.lane.eager:
            note(rows, self._of(self.lane.states), self.values.flops)

    def scores(
        self, rows: Sequence[Successor], chunk: Mapping[Lane, ChunkStates], asked: Sequence[Prompt]
    ) -> list[float]:
        if not self.lane.eager:
            found = self._of(chunk[self.lane].newest)
            note(rows, [found[row.origin] for row in rows], self.values.flops)
        return [row.value for row in rows]


class TokenValues:
    """w·Q(s, a), read before the last token."""

    keeps_last = False

    def __init__(self, values: VocabValues, weight: float) -> None:
        self.values, self.lane, self.weight = values, values.lane, weight
        self.name = f"value of {values.name}"

    def _of(self, states: tuple[Tensor, ...], tokens: Tensor) -> list[float]:
        """(R,) of states (R, D) and tokens (R,)."""
        return (self.values.taken(states, tokens) * self.weight).tolist()

    def chosen(self, rows: Sequence[Successor], choice: Choice) -> None:
        if self.lane.eager:
            found = self._of(self.lane.states, choice.token.to(self.lane.device))
            note(rows, found, self.values.token_flops)

    def stepped(self, rows: Sequence[Successor]) -> None:
        pass

    def scores(
        self, rows: Sequence[Successor], chunk: Mapping[Lane, ChunkStates], asked: Sequence[Prompt]
    ) -> list[float]:
        if not self.lane.eager:
            states = chunk[self.lane]
            found = self._of(states.before, states.last)
            note(rows, [found[row.origin] for row in rows], self.values.token_flops)
        return [row.value for row in rows]


def note(rows: Sequence[Successor], values: Sequence[float], flops: float) -> None:
    """Keeps each row's newest value, and charges the row for it."""
    for row, value in zip(rows, values, strict=True):
        row.value = value
        row.flops += flops
