"""A value model as a scorer: what it reads, and what it is charged."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.decode.chunk import ChunkedBatch, Chunks
from stages.decode.parts import ChunkStates, Successor
from stages.decode.scorers import explicit
from stages.decode.scorers.explicit import ExplicitScorer, StateValues, TokenValues
from stages.decode.values.scalar import HeadValues
from stages.decode.values.vocab import VocabValues
from stages.engine.batch import Batch
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.errors import BadInput
from stages.records import Prompt

Encoded = list[tuple[str, list[int]]]


Search = Callable[..., list[Response]]


Kind = tuple[Any, Callable[[list[int], list[int]], float]]
"""A scorer, and its score by fresh forwards."""


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


@pytest.mark.parametrize(("name", "size"), [("explicit", 32), ("explicit, wide", 32), ("explicit, separate", 16)])
def test_a_value_is_charged_for_each_one_that_is_computed(
    search: Search, kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    """A linear head, or one row of a head over the vocabulary: 2·(D + 1) FLOPs a value, and no more values than are
    read: the last of a chunk where the model forwards chunks, every one where it steps."""
    computed = []

    def counting(read: Any) -> Any:
        def count(*args: Any) -> torch.Tensor:
            values = read(*args)
            computed.append(values.numel())
            return values

        return count

    monkeypatch.setattr(HeadValues, "values", counting(HeadValues.values))
    monkeypatch.setattr(VocabValues, "taken", counting(VocabValues.taken))
    counted = search(kinds[name][0], 2, 2, 2)
    values = sum(computed)

    note = explicit.note
    monkeypatch.setattr(explicit, "note", lambda rows, found, flops: note(rows, found, 0.0))
    without = search(kinds[name][0], 2, 2, 2)
    assert tokens(counted) == tokens(without)
    assert sum(row.flops for row in counted) - sum(row.flops for row in without) == values * 2 * (size + 1) > 0


def test_a_model_that_only_scores_reads_each_token_once(
    ending: LoadedLM, prompts: Encoded, kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of all lanes: prompts once each, every drawn token once in the scorer, and in the policy but those that
    ended a row."""
    lanes = Lanes(ending)
    chunks = Chunks(kinds["explicit, separate"][0].open(lanes), beams=2, successors=2, chunk=2)
    read, drawn = [], []
    score, append = ChunkedBatch._score, Batch._append

    def scored(self: Any, rows: list[Successor]) -> None:
        before = sum(one.tokens for one in rows)
        score(self, rows)
        read.append(sum(one.tokens for one in rows) - before)

    def appended(self: Any, choice: Any) -> None:
        drawn.append(len(choice.token))
        append(self, choice)

    monkeypatch.setattr(ChunkedBatch, "_score", scored)
    monkeypatch.setattr(Batch, "_append", appended)
    asked = [Prompt(id=n, part="test", text=str(ending.tokenizer.decode(i))) for n, i in prompts]
    Engine(lanes, Draw(Sampling(max_new_tokens=6), 0, 64)).run(prompts, 1, asked, schedule=chunks)
    assert sum(read) == sum(drawn)


def line(act: Callable[[], Any]) -> str:
    with pytest.raises(BadInput) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_head_over_the_vocabulary_is_of_one_reward(policy: LoadedLM, vocab_head: Path) -> None:
    assert line(lambda: ExplicitScorer(vocab_head, reward="nosuch").open(Lanes(policy))) == (
        "search.scorer.reward: the value model has no reward 'nosuch'; it has proxy"
    )
    for reward in (None, "proxy", ["proxy"]):
        ExplicitScorer(vocab_head, reward=reward).open(Lanes(policy))


# what is read


class FixedLane:
    """A lane with one state of one number a row."""

    device = torch.device("cpu")

    def __init__(self, *, eager: bool, states: list[float]) -> None:
        self.eager = eager
        self.states = (torch.tensor(states)[:, None],)


def scalar(lane: Any) -> StateValues:
    """V = (h, −h), weights 2 and ½: 1.5·h; a value costs 7 FLOPs."""
    read: Any = SimpleNamespace(lane=lane, name="value", flops=7.0, betas=(2.0, 0.5))
    read.values = lambda states: torch.cat([states[0], -states[0]], dim=-1).double()
    return StateValues(read)


def wide(lane: Any) -> TokenValues:
    """Q(h, a) = 10·h + a, weight 2; one value costs 3 FLOPs."""
    read: Any = SimpleNamespace(lane=lane, name="value", token_flops=3.0)
    read.taken = lambda states, tokens: 10 * states[0][:, 0] + tokens
    return TokenValues(read, 2.0)


def successors(*origins: int) -> list[Successor]:
    return [Successor(0, 0, slot=origin, origin=origin) for origin in origins]


def test_a_state_s_value_is_read_after_every_token_where_the_model_steps() -> None:
    lane: Any = FixedLane(eager=True, states=[1.0, -2.0])
    scorer, rows, choice = scalar(lane), successors(0, 1), SimpleNamespace(token=torch.tensor([5, 6]))
    assert scorer.keeps_last  # the state after the token that ends a row is wanted
    scorer.chosen(rows, choice)  # type: ignore[arg-type]
    assert all(math.isnan(row.value) for row in rows)
    scorer.stepped(rows)
    assert scorer.scores(rows, {}, []) == [1.5, -3.0]
    assert [row.flops for row in rows] == [7.0, 7.0]


def test_a_token_s_value_is_read_before_it_where_the_model_steps() -> None:
    """2·(10·1 + 5) = 30 and 2·(10·(−2) + 6) = −28."""
    lane: Any = FixedLane(eager=True, states=[1.0, -2.0])
    scorer, rows, choice = wide(lane), successors(0, 1), SimpleNamespace(token=torch.tensor([5, 6]))
    assert not scorer.keeps_last
    scorer.chosen(rows, choice)  # type: ignore[arg-type]
    lane.states = (torch.zeros(2, 1),)
    scorer.stepped(rows)
    assert scorer.scores(rows, {}, []) == [30.0, -28.0]
    assert [row.flops for row in rows] == [3.0, 3.0]


def test_models_that_read_chunks_are_asked_by_the_row_s_place() -> None:
    """Row 0 was the second of the chunk. State values read the newest states, token values those before."""
    lane: Any = FixedLane(eager=False, states=[9.0, 9.0])
    newest, before = (torch.tensor([[1.0], [4.0]]),), (torch.tensor([[2.0], [3.0]]),)
    chunk: Any = {lane: ChunkStates(newest, before, torch.tensor([5, 6]), [], [1, 1], [0.0, 0.0])}
    for scorer, expected, flops in ((scalar(lane), [6.0, 1.5], 7.0), (wide(lane), [72.0, 50.0], 3.0)):
        rows, choice = successors(1, 0), SimpleNamespace(token=torch.tensor([5, 6]))
        assert not scorer.keeps_last
        scorer.chosen(rows, choice)  # type: ignore[arg-type]
        scorer.stepped(rows)
        assert scorer.scores(rows, chunk, []) == expected
        assert [row.flops for row in rows] == [flops, flops]
