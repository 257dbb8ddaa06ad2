"""Chunk search against a plain reference (`conftest.py`), and how successors are compared."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stages.decode.chunk import compare_officially, compare_successors
from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.parts import Successor
from stages.decode.scorers.explicit import StateValues
from stages.decode.scorers.implicit import LogRatios
from stages.decode.scorers.reward import TextRewards
from stages.engine.causal_lm import CausalLM
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.learn.values.scalar_head import fingerprint

Encoded = list[tuple[str, list[int]]]


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


Search = Callable[..., list[Response]]


Kind = tuple[Any, Callable[[list[int], list[int]], float]]
"""A scorer, and its score by fresh forwards."""


NAMES = ["reward", "implicit", "implicit, untuned", "explicit", "explicit, wide", "explicit, separate"]


@pytest.mark.parametrize(
    ("name", "w", "k", "chunk"),
    [*((name, 2, 3, 2) for name in NAMES), ("implicit", 3, 1, 1), ("explicit", 1, 4, 3), ("explicit, wide", 2, 1, 1)],
)
def test_a_batched_search_equals_the_reference_of_one_prompt_at_a_time(
    search: Search,
    reference: Any,
    ending: LoadedLM,
    prompts: Encoded,
    kinds: dict[str, Kind],
    name: str,
    w: int,
    k: int,
    chunk: int,
) -> None:
    scorer, score = kinds[name]
    for row, (prompt, ids) in zip(search(scorer, w, k, chunk), prompts, strict=True):
        best, worth = reference(ending, prompt, ids, score, w, k, chunk)
        assert row.token_ids == best
        assert row.score == pytest.approx(worth, abs=1e-3)  # type: ignore[attr-defined]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    w=st.integers(1, 3),
    k=st.integers(1, 3),
    chunk=st.integers(1, 7),
    name=st.sampled_from(["reward", "explicit, separate", "implicit"]),
    official=st.booleans(),
    rows=st.integers(1, 20),
)
def test_any_size_of_search_equals_the_reference(
    search: Search,
    reference: Any,
    ending: LoadedLM,
    prompts: Encoded,
    kinds: dict[str, Kind],
    w: int,
    k: int,
    chunk: int,
    name: str,
    official: bool,
    rows: int,
) -> None:
    assume(w * k > 1)  # else it is sampling: a test of its own
    scorer, score = kinds[name]
    found = search(scorer, w, k, chunk, rows=rows, compat="official" if official else "")
    for row, (prompt, ids) in zip(found, prompts, strict=True):
        best, worth = reference(ending, prompt, ids, score, w, k, chunk, official)
        assert row.score == pytest.approx(worth, abs=1e-3)  # type: ignore[attr-defined]
        assert row.token_ids == best


# identities


@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_the_groups_that_step_together(
    search: Search, kinds: dict[str, Kind], name: str, head: Path
) -> None:
    guide = ScalarValue(head, beta=1.0, k=4) if name == "reward" else None
    runs = [search(kinds[name][0], 2, 2, 2, guide=guide, rows=rows, samples=2) for rows in (1, 9, 64)]
    for run in runs[1:]:
        assert tokens(run) == tokens(runs[0])
        assert [row.tokens for row in run] == [row.tokens for row in runs[0]]
        assert [row.flops for row in run] == pytest.approx([row.flops for row in runs[0]])


@pytest.mark.parametrize("name", ["implicit", "implicit, untuned", "explicit, separate"])
def test_models_that_step_for_a_guide_score_as_those_that_read_whole_chunks(
    search: Search, kinds: dict[str, Kind], tuned_model: Path, small_model: Path, make_head: Any, name: str
) -> None:
    """A guide of strength 0 makes every lane eager and changes no draw."""
    value = ScalarValue(
        make_head(layer=1, size=16, trunk=fingerprint(small_model)), beta=0.0, k=3, model=CausalLM(small_model)
    )
    idle = Sum([ImplicitValue(CausalLM(tuned_model), weight=0.0), value])
    lazy, eager = search(kinds[name][0], 2, 3, 2), search(kinds[name][0], 2, 3, 2, guide=idle)
    assert tokens(lazy) == tokens(eager)
    worth = [row.score for row in lazy]  # type: ignore[attr-defined]
    assert worth == pytest.approx([row.score for row in eager], abs=1e-4)  # type: ignore[attr-defined]


def test_ivg_both_values_together(search: Search, kinds: dict[str, Kind], tuned_model: Path) -> None:
    """Implicit value per token, explicit value per chunk: another result than either."""
    guide = ImplicitValue(CausalLM(tuned_model), weight=0.5)
    both = search(kinds["explicit"][0], 2, 2, 2, guide=guide)
    alone = search(None, 2, 2, 2, guide=guide)
    assert tokens(both) != tokens(alone)
    assert tokens(both) != tokens(search(kinds["explicit"][0], 2, 2, 2))
    assert len(both) == len(alone) == 5
    assert all(math.isnan(row.logprob) for row in both)


# semantics


def row(tokens: list[int], score: float, over: bool = False) -> Successor:
    return Successor(0, 0, token_ids=tokens, score=score, finished=over)


def is_over(one: Successor) -> bool:
    return one.finished


def test_ended_rows_join_the_pool_and_take_no_place() -> None:
    a, b, twin, c = row([1], 0.9, over=True), row([2], 0.8), row([2], 0.8), row([3], 0.1)
    pool, going = compare_successors([], [a, b, twin, c], 2, 3, is_over)
    assert pool == [a]
    assert going == [(0, b), (3, c)]  # b's successors draw from slots 0–2, c's from 3–5; the twin is merged


def test_a_clone_crowds_out_a_better_extension_in_public_code() -> None:
    """W = 1, K = 2. First chunk: `a` ends with score .9, `b` (.5) would go on to 2.0.

    Ours keeps `a` in the pool and finds `b`'s extension; the public rule clones `a` for ever.
    """
    a, b, better = row([1], 0.9, over=True), row([2], 0.5), row([2, 4], 2.0, over=True)
    pool, going = compare_successors([], [a, b], 1, 2, is_over)
    assert going == [(0, b)]
    pool, going = compare_successors(pool, [better, row([2, 5], 0.2, over=True)], 1, 2, is_over)
    assert (going, max(pool, key=lambda one: one.score)) == ([], better)
    clones, going = compare_officially([], [a, b], 1, 2, is_over)
    assert (clones, going) == ([a, a], [])


def test_a_clone_takes_a_second_place_in_public_code() -> None:
    """W = 2, K = 2: `a` (.9) ended in the first chunk; in the second its two clones fill both places, above .8."""
    a, b = row([1], 0.9, over=True), row([2], 0.85)
    clones, going = compare_officially([], [a, b], 2, 2, is_over)
    assert (clones, going) == ([a, a], [(2, b)])
    extension = row([2, 4], 0.8)
    clones, going = compare_officially(clones, [extension, row([2, 5], 0.7)], 2, 2, is_over)
    assert (clones, going) == ([a, a, a, a], [])
    _, going = compare_successors([a], [extension, row([2, 5], 0.7)], 2, 2, is_over)
    assert going[0] == (0, extension)


def test_the_best_ever_seen_is_returned_and_public_code_loses_it(search: Search, kinds: dict[str, Kind]) -> None:
    """W = 1: the same draws until public code keeps an ended beam. Ours is never worse, and better somewhere."""
    scorer = kinds["explicit"][0]
    ours = search(scorer, 1, 3, 1, samples=8)
    theirs = search(scorer, 1, 3, 1, samples=8, compat="official")
    gains = [a.score - b.score for a, b in zip(ours, theirs, strict=True)]  # type: ignore[attr-defined]
    assert min(gains) >= 0
    assert max(gains) > 0


def test_length_normalised_scores(
    search: Search, reference: Any, ending: LoadedLM, prompts: Encoded, kinds: dict[str, Kind]
) -> None:
    scorer, score = kinds["implicit"]
    found = search(scorer, 2, 2, 2, length_normalised=True)
    for one, (prompt, ids) in zip(found, prompts, strict=True):
        best, worth = reference(ending, prompt, ids, lambda p, r: score(p, r) / len(r), 2, 2, 2)
        assert one.token_ids == best
        assert one.score == pytest.approx(worth, abs=1e-3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["reward", "explicit", "explicit, separate", "implicit"])
def test_a_score_that_is_not_finite_is_named(
    search: Search, kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kind = {"r": TextRewards, "e": StateValues, "i": LogRatios}[name[0]]
    monkeypatch.setattr(kind, "scores", lambda self, rows, read, asked: [math.nan] * len(rows))
    with pytest.raises(FloatingPointError, match=r"is not finite after step \d of prompt 'p0', sample 0"):
        search(kinds[name][0], 2, 2, 2)
