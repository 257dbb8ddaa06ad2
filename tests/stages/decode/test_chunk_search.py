"""Chunk search as it is configured: when it is sampling, when Best-of-N, and what it refuses."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.decode.best_of import BestOf
from stages.decode.chunk import Chunks
from stages.decode.chunk_search import ChunkSearch
from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.scorers.explicit import ExplicitScorer
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.errors import BadInput
from stages.records import Prompt

Encoded = list[tuple[str, list[int]]]


Search = Callable[..., list[Response]]


Kind = tuple[Any, Callable[[list[int], list[int]], float]]
"""A scorer, and its score by fresh forwards."""


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


@pytest.mark.parametrize("name", ["reward", "implicit", "explicit"])
@pytest.mark.parametrize("chunk", [1, 4, None])
def test_one_beam_and_one_successor_is_sampling(
    search: Search, ending: LoadedLM, prompts: Encoded, kinds: dict[str, Kind], name: str, chunk: int | None
) -> None:
    """Through the engine of chunks itself too, not only where `ChunkSearch` sees that nothing is chosen."""
    sampling = Sampling(max_new_tokens=6)
    plain = Engine(Lanes(ending), Draw(sampling, 0, 64)).run(prompts, 2)
    assert tokens(search(kinds[name][0], 1, 1, chunk, samples=2)) == tokens(plain)
    lanes = Lanes(ending)
    chunks = Chunks(kinds[name][0].open(lanes), beams=1, successors=1, chunk=chunk)
    asked = [Prompt(id=one, part="test", text=one) for one, _ in prompts]
    if name != "implicit":
        rows = Engine(lanes, Draw(sampling, 0, 7)).run(prompts, 2, asked, schedule=chunks)
        assert tokens(rows) == tokens(plain)
        assert [row.kl for row in rows] == [row.kl for row in plain]


@pytest.mark.parametrize(("w", "k"), [(1, 6), (2, 3), (6, 1)])
@pytest.mark.parametrize("chunk", [None, 6, 50])
def test_chunks_as_long_as_the_response_are_best_of_n(
    search: Search,
    ending: LoadedLM,
    prompts: Encoded,
    asked: list[Prompt],
    kinds: dict[str, Kind],
    w: int,
    k: int,
    chunk: int | None,
) -> None:
    draw = Draw(Sampling(max_new_tokens=6), 0, 64)
    scorer = kinds["reward"][0]
    best = BestOf(6, scorer.reward).decode(Lanes(ending), draw, Terms(), asked, prompts, 2)
    found = search(scorer, w, k, chunk, samples=2)
    assert tokens(found) == tokens(best)
    assert [row.text for row in found] == [row.text for row in best]
    assert sum(row.tokens for row in found) == sum(row.tokens for row in best)


def test_without_a_scorer_it_is_emulated_fine_tuning(
    search: Search, ending: LoadedLM, prompts: Encoded, tuned_model: Path
) -> None:
    guide = ImplicitValue(CausalLM(tuned_model), weight=0.5)
    sampling = Sampling(max_new_tokens=6)
    lanes = Lanes(ending)
    alone = Engine(lanes, Draw(sampling, 0, 64), guide.open(lanes, sampling)).run(prompts, 1)
    found = search(None, 4, 4, 2, guide=guide)
    assert tokens(found) == tokens(alone)
    assert [row.kl for row in found] == [row.kl for row in alone]


# refusals


def line(act: Callable[[], Any]) -> str:
    with pytest.raises(BadInput) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize(
    ("key", "what"), [("beams", "beams"), ("successors", "successors of a beam"), ("chunk", "tokens")]
)
def test_beams_successors_and_chunk_are_positive(key: str, what: str, size: int) -> None:
    sizes: dict[str, Any] = {key: size}
    assert line(ChunkSearch(**sizes).check) == f"search.{key}: {size} is not a positive number of {what}"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"beams": 0}, "search.beams"),
        ({"successors": -1}, "search.successors"),
        ({"chunk": 0}, "search.chunk"),
        ({"compat": "trl"}, "search.compat"),
        ({"scorer": ExplicitScorer(Path("x"), weights=math.inf)}, "search.scorer.weights"),
        ({"scorer": ExplicitScorer(Path("x"), transform="exp")}, "search.scorer.transform"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as error:
        ChunkSearch(**settings).check()
    assert error.value.field == field
