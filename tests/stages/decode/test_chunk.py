"""Chunk search against a plain reference: one prompt at a time, no cache, every figure from a fresh forward."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from stages.decode.best_of import BestOf
from stages.decode.chunk import ChunkedBatch, Chunks, compare_officially, compare_successors
from stages.decode.chunk_search import ChunkSearch
from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.parts import Successor
from stages.decode.scorers import explicit
from stages.decode.scorers.explicit import ExplicitScorer, StateValues
from stages.decode.scorers.implicit import ImplicitScorer, LogRatios
from stages.decode.scorers.reward import RewardScorer, TextRewards
from stages.decode.values.scalar import HeadValues
from stages.decode.values.vocab import VocabValues
from stages.engine.batch import Batch
from stages.engine.causal_lm import CausalLM
from stages.engine.distribution import Distribution
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling, uniforms
from stages.engine.terms import Terms
from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead, fingerprint
from stages.learn.values.vocab_head import VocabHead
from stages.records import Prompt

Encoded = list[tuple[str, list[int]]]


class Letters:
    """Reward: how many letters of `wanted` a text holds; so texts of different ends tie seldom."""

    def __init__(self, wanted: str = "aeiou") -> None:
        self.wanted = wanted

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        assert len(prompts) == len(responses)
        return np.array([sum(text.count(letter) for letter in self.wanted) for text in responses], dtype=float)


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


@pytest.fixture(scope="module")
def asked(prompts: Encoded, policy: LoadedLM) -> list[Prompt]:
    return [Prompt(id=name, part="test", text=str(policy.tokenizer.decode(ids))) for name, ids in prompts]


@pytest.fixture(scope="module")
def ending(tiny_model: Path, prompts: Encoded) -> LoadedLM:
    """The policy with its most common token as EOS, so that searches meet many ended beams."""
    policy = CausalLM(tiny_model).load("cpu")
    rows = Engine(Lanes(policy), Draw(Sampling(max_new_tokens=6), 0, 64)).run(prompts, 6)
    policy.eos = int(np.bincount(np.concatenate(tokens(rows))).argmax())
    return policy


Search = Callable[..., list[Response]]


@pytest.fixture
def search(ending: LoadedLM, prompts: Encoded, asked: list[Prompt]) -> Search:
    """`search(scorer, w, k, l, guide=None, rows=1000, only=…, **sampling)` → responses."""

    def run(
        scorer: Any,
        w: int,
        k: int,
        chunk: int | None,
        guide: Any = None,
        rows: int = 1000,
        samples: int = 1,
        compat: str = "",
        length_normalised: bool = False,
        **given: Any,
    ) -> list[Response]:
        sampling = Sampling(**{"max_new_tokens": 6, **given})
        lanes = Lanes(ending)
        terms = Terms() if guide is None else guide.open(lanes, sampling)
        found = ChunkSearch(w, k, chunk, scorer, length_normalised, compat)
        return found.decode(lanes, Draw(sampling, 0, rows), terms, asked, prompts, samples)

    return run


# the reference

ScoreOf = Callable[[list[int], list[int]], float]
"""(prompt, response so far) → score."""


@torch.inference_mode()
def reference(
    policy: LoadedLM, name: str, prompt: list[int], score: ScoreOf, w: int, k: int, chunk: int, official: bool = False
) -> tuple[list[int], float]:
    """Best response and its score; semantics written out from DESIGN §4, on lists of tokens."""
    limit, size = 6, w * k
    live: list[tuple[list[int], int]] = [([], slot) for slot in range(size)]
    pool: list[list[int]] = []
    clones: list[list[int]] = []
    while live:
        grown: list[tuple[list[int], int]] = []
        for response, slot in live:
            response = list(response)
            for _ in range(chunk):
                if len(response) == limit or (response and response[-1] == policy.eos):
                    break
                logits = policy.model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[:, -1]
                u = torch.from_numpy(uniforms(0, name, slot, limit)[len(response)])
                response.append(int(Distribution.of(logits, Sampling()).draw(u[:1])))
            grown.append((response, slot))
        over = [r for r, _ in grown if r[-1] == policy.eos or len(r) == limit]
        going = [r for r, _ in grown if not (r[-1] == policy.eos or len(r) == limit)]
        if official:
            ranked = sorted([*clones, *(r for r, _ in grown)], key=lambda r: -score(prompt, r))[:w]
            clones = [r for r in ranked if r[-1] == policy.eos or len(r) == limit for _ in range(k)]
            pool = clones
            beams = [(i, r) for i, r in enumerate(ranked) if not (r[-1] == policy.eos or len(r) == limit)]
        else:
            pool += over
            distinct = [r for i, r in enumerate(going) if r not in going[:i]]
            beams = list(enumerate(sorted(distinct, key=lambda r: -score(prompt, r))[:w]))
        live = [(beam, i * k + j) for i, beam in beams for j in range(k)]
    best = max(pool, key=lambda r: score(prompt, r))
    return best, score(prompt, best)


@torch.inference_mode()
def fresh_logprob(model: Any, prompt: list[int], response: list[int]) -> float:
    logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0].double()
    logp = logits.log_softmax(-1)
    return sum(float(logp[len(prompt) + i - 1, token]) for i, token in enumerate(response))


@torch.inference_mode()
def fresh_state(model: Any, ids: list[int], layer: int) -> torch.Tensor:
    out = model(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True)
    return out.hidden_states[layer][0, -1]


Kind = tuple[Any, ScoreOf]


@pytest.fixture(scope="module")
def kinds(
    ending: LoadedLM,
    tiny_model: Path,
    tuned_model: Path,
    small_model: Path,
    head: Path,
    vocab_head: Path,
    make_head: Any,
) -> dict[str, Kind]:
    """Each scorer beside its score by fresh forwards."""
    tuned, small, base = (CausalLM(f).load("cpu").model for f in (tuned_model, small_model, tiny_model))
    small_head = make_head(layer=1, size=16, trunk=fingerprint(small_model))
    scalar, wide, other = ValueHead.load(head), VocabHead.load(vocab_head), ValueHead.load(small_head)

    def text(response: list[int]) -> str:
        return str(ending.tokenizer.decode(response, skip_special_tokens=True))

    return {
        "reward": (RewardScorer(Letters()), lambda p, r: Letters().score([None], [text(r)])[0]),  # type: ignore[list-item]
        "implicit": (
            ImplicitScorer(CausalLM(tuned_model)),
            lambda p, r: fresh_logprob(tuned, p, r) - fresh_logprob(base, p, r),
        ),
        "implicit, untuned": (
            ImplicitScorer(CausalLM(tuned_model), CausalLM(small_model)),
            lambda p, r: fresh_logprob(tuned, p, r) - fresh_logprob(small, p, r),
        ),
        "explicit": (
            ExplicitScorer(head),
            lambda p, r: float(scalar(fresh_state(base, [*p, *r], scalar.layer))[0]),
        ),
        "explicit, wide": (
            ExplicitScorer(vocab_head),
            lambda p, r: float(wide(fresh_state(base, [*p, *r[:-1]], wide.layer))[r[-1]]),
        ),
        "explicit, separate": (
            ExplicitScorer(small_head, CausalLM(small_model)),
            lambda p, r: float(other(fresh_state(small, [*p, *r], other.layer))[0]),
        ),
    }


NAMES = ["reward", "implicit", "implicit, untuned", "explicit", "explicit, wide", "explicit, separate"]


@pytest.mark.parametrize(
    ("name", "w", "k", "chunk"),
    [*((name, 2, 3, 2) for name in NAMES), ("implicit", 3, 1, 1), ("explicit", 1, 4, 3), ("explicit, wide", 2, 1, 1)],
)
def test_a_batched_search_equals_the_reference_of_one_prompt_at_a_time(
    search: Search, ending: LoadedLM, prompts: Encoded, kinds: dict[str, Kind], name: str, w: int, k: int, chunk: int
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
    search: Search, ending: LoadedLM, prompts: Encoded, asked: list[Prompt], w: int, k: int, chunk: int | None
) -> None:
    draw = Draw(Sampling(max_new_tokens=6), 0, 64)
    best = BestOf(6, Letters()).decode(Lanes(ending), draw, Terms(), asked, prompts, 2)
    found = search(RewardScorer(Letters()), w, k, chunk, samples=2)
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


def test_length_normalised_scores(search: Search, ending: LoadedLM, prompts: Encoded, kinds: dict[str, Kind]) -> None:
    scorer, score = kinds["implicit"]
    found = search(scorer, 2, 2, 2, length_normalised=True)
    for one, (prompt, ids) in zip(found, prompts, strict=True):
        best, worth = reference(ending, prompt, ids, lambda p, r: score(p, r) / len(r), 2, 2, 2)
        assert one.token_ids == best
        assert one.score == pytest.approx(worth, abs=1e-3)  # type: ignore[attr-defined]


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


def test_a_reward_is_charged_for_the_whole_text_at_every_comparison(search: Search, policy: LoadedLM) -> None:
    """What it says of itself, summed over its calls, is what the responses cost more than with the same reward free."""
    told: list[int] = []

    class Costly(Letters):
        def cost(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            lengths = np.array([len(text) for text in responses])
            told.extend(lengths.tolist())
            return lengths, 2.0 * lengths

    free, counted = (search(RewardScorer(reward), 2, 2, 2) for reward in (Letters(), Costly()))
    assert tokens(counted) == tokens(free)
    assert len(told) > 2 * 4 * len(free)  # three comparisons of up to four rows each
    assert sum(row.tokens for row in counted) - sum(row.tokens for row in free) == sum(told) > 0
    assert sum(row.flops for row in counted) - sum(row.flops for row in free) == pytest.approx(2 * sum(told))


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


# another vocabulary


def test_a_scorer_of_another_vocabulary_reads_the_text(
    search: Search,
    ending: LoadedLM,
    prompts: Encoded,
    asked: list[Prompt],
    strange_model: Path,
    make_head: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scores equal a fresh encoding of prompt and text by the scorer's own tokenizer; few tokens are read twice."""
    other = CausalLM(strange_model).load("cpu")
    folder = make_head(layer=1, size=16, trunk=fingerprint(strange_model))
    head = ValueHead.load(folder)
    own = {p.id: list(other.tokenizer(p.text)["input_ids"]) for p in asked}
    by_ids = {tuple(ids): own[name] for name, ids in prompts}

    def encoded(prompt: list[int], response: list[int]) -> list[int]:
        text = str(ending.tokenizer.decode(response, skip_special_tokens=True))
        ids = [*by_ids[tuple(prompt)], *other.tokenizer(text, add_special_tokens=False)["input_ids"]]
        return [*ids, other.eos] if response[-1] == ending.eos else ids

    def explicit(prompt: list[int], response: list[int]) -> float:
        return float(head(fresh_state(other.model, encoded(prompt, response), head.layer))[0])

    def implicit(prompt: list[int], response: list[int]) -> float:
        ids, start = encoded(prompt, response), by_ids[tuple(prompt)]
        return fresh_logprob(other.model, start, ids[len(start) :]) - fresh_logprob(ending.model, prompt, response)

    for scorer, score in (
        (ExplicitScorer(folder, CausalLM(strange_model)), explicit),
        (ImplicitScorer(CausalLM(strange_model)), implicit),
    ):
        for found, (prompt, ids) in zip(search(scorer, 2, 2, 2), prompts, strict=True):
            best, worth = reference(ending, prompt, ids, score, 2, 2, 2)
            assert found.score == pytest.approx(worth, abs=1e-3)  # type: ignore[attr-defined]
            assert found.token_ids == best


def test_a_response_that_is_longer_in_the_scorer_s_tokens_must_fit_its_context(
    ending: LoadedLM, prompts: Encoded, asked: list[Prompt], strange_model: Path, tmp_path: Path
) -> None:
    """There is room for the six tokens of the policy, not for as many letters as their text has."""
    tokenizer = AutoTokenizer.from_pretrained(strange_model)
    longest = max(len(tokenizer(prompt.text)["input_ids"]) for prompt in asked)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=longest + 6)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    search = ChunkSearch(2, 2, 2, ImplicitScorer(CausalLM(tmp_path)))
    with pytest.raises(BadInput) as error:
        search.decode(Lanes(ending), Draw(Sampling(max_new_tokens=6), 0, 64), Terms(), asked, prompts, 4)
    assert error.value.field == "search.scorer.tuned.folder"
    assert re.fullmatch(
        rf"a prompt of {longest} tokens and the \d+ that {tmp_path} makes of a response's text exceed its context of "
        rf"{longest + 6}; shorten the prompts or set a smaller max_new_tokens",
        error.value.problem,
    )


# refusals


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


@pytest.mark.parametrize("name", ["reward", "explicit", "explicit, separate", "implicit"])
def test_a_score_that_is_not_finite_is_named(
    search: Search, kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kind = {"r": TextRewards, "e": StateValues, "i": LogRatios}[name[0]]
    monkeypatch.setattr(kind, "scores", lambda self, rows, read, asked: [math.nan] * len(rows))
    with pytest.raises(FloatingPointError, match=r"is not finite after step \d of prompt 'p0', sample 0"):
        search(kinds[name][0], 2, 2, 2)


@pytest.mark.parametrize("shape", [(-2,), (0, 1), (0, 2)])
def test_a_reward_of_the_wrong_shape_compares_nothing(search: Search, shape: tuple[int, ...]) -> None:
    """Two scores too few; (N, 1) and (N, 2)."""

    class Shapeless:
        def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
            return np.zeros((len(responses) + shape[0], *shape[1:]))

    with pytest.raises(BadInput, match=r"^search\.scorer\.reward: Shapeless\.score gave shape"):
        search(RewardScorer(Shapeless()), 2, 2, 2)
