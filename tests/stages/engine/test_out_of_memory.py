"""Too little memory: fewer rows step together, and nothing else changes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.decode.chunk_search import ChunkSearch
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.scorers.explicit import ExplicitScorer
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine, Refill
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.records import Prompt

Prompts = list[tuple[str, list[int]]]


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


class Crowded:
    """A policy whose forwards fail with more rows than fit, as its device would."""

    def __init__(self, policy: LoadedLM, fits: int, error: BaseException) -> None:
        self.original, self.fits, self.error, self.refused = policy.step, fits, error, 0

    def __call__(self, ids: torch.Tensor, cache: Any, layers: Any = ()) -> Any:
        if len(ids) > self.fits:
            self.refused += 1
            raise self.error
        return self.original(ids, cache, layers)


ERRORS = [
    torch.OutOfMemoryError("out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["device", "cpu", "python"])
def test_out_of_memory_halves_the_rows_and_changes_nothing(
    decode: Any, tiny_model: Path, prompts: Prompts, head: Path, error: BaseException
) -> None:
    """16 rows do not fit, nor 8; 4 do."""
    guide, sampling = ScalarValue(head, beta=2.0, k=4), Sampling(max_new_tokens=6)
    policy = CausalLM(tiny_model).load("cpu")
    crowded = Crowded(policy, 5, error)
    policy.step = crowded  # type: ignore[method-assign]
    lanes = Lanes(policy)
    engine = Engine(lanes, Draw(sampling, 0, 16), guide.open(lanes, sampling))
    with pytest.warns(UserWarning, match="out of memory: decoding goes on with 4 rows at a time"):
        rows = engine.run(prompts, 4)
    assert crowded.refused == 2
    assert tokens(rows) == tokens(decode(guide, samples=4))


def test_what_was_done_before_memory_ran_out_is_kept(tiny_model: Path, prompts: Prompts, decode: Any) -> None:
    policy, calls = CausalLM(tiny_model).load("cpu"), iter(range(1000))
    original = policy.step
    broken: list[int] = []

    def step(ids: torch.Tensor, cache: Any, layers: Any = ()) -> Any:
        if next(calls) == 8:
            broken.append(len(ids))
            raise ERRORS[0]
        return original(ids, cache, layers)

    policy.step = step  # type: ignore[method-assign]
    engine = Engine(Lanes(policy), Draw(Sampling(max_new_tokens=6), 0, 4))
    sizes: list[int] = []

    class Counted(Refill):
        def decode(self, engine: Engine, pending: Any, rows: int) -> Any:
            sizes.append(len(pending))
            return super().decode(engine, pending, rows)

    with pytest.warns(UserWarning, match="2 rows"):
        rows = engine.run(prompts, 2, schedule=Counted())
    assert sizes == [10, 6]  # the first four were done after five forwards
    assert tokens(rows) == tokens(decode())


def test_a_single_row_that_does_not_fit_is_an_error(tiny_model: Path, prompts: Prompts) -> None:
    policy = CausalLM(tiny_model).load("cpu")
    policy.step = Crowded(policy, 0, ERRORS[0])  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="out of memory"), pytest.raises(torch.OutOfMemoryError):
        Engine(Lanes(policy), Draw(Sampling(), 0, 4)).run(prompts, 1)


def test_other_errors_are_not_taken_for_it(tiny_model: Path, prompts: Prompts) -> None:
    policy = CausalLM(tiny_model).load("cpu")
    policy.step = Crowded(policy, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))  # type: ignore
    with pytest.raises(RuntimeError, match="mat1"):
        Engine(Lanes(policy), Draw(Sampling(), 0, 4)).run(prompts, 1)


def test_a_search_shrinks_by_whole_groups(tiny_model: Path, prompts: Prompts, head: Path) -> None:
    """W·K = 4: 16 rows do not fit, 8 do; less than one group there can't be."""
    asked = [Prompt(id=name, part="test", text=name) for name, _ in prompts]
    sampling, search = Sampling(max_new_tokens=6), ChunkSearch(2, 2, 2, ExplicitScorer(head))
    free = CausalLM(tiny_model).load("cpu")
    expected = search.decode(Lanes(free), Draw(sampling, 0, 64), Terms(), asked, prompts, 1)
    policy = CausalLM(tiny_model).load("cpu")
    policy.step = Crowded(policy, 8, ERRORS[0])  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="8 rows"):
        rows = search.decode(Lanes(policy), Draw(sampling, 0, 16), Terms(), asked, prompts, 1)
    assert tokens(rows) == tokens(expected)
    policy.step = Crowded(free, 3, ERRORS[0])  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="out of memory"), pytest.raises(torch.OutOfMemoryError):
        search.decode(Lanes(policy), Draw(sampling, 0, 16), Terms(), asked, prompts, 1)
