"""Identities, each said where it is tested, over random tiny models, batch shapes, paddings, k, β, W, K and L.

The examples are the same in every run; `TILT_EXAMPLES=500 pytest …` tries more of them.
"""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.decode.best_of import BestOf
from stages.decode.chunk import Chunks
from stages.decode.chunk_search import ChunkSearch
from stages.decode.guides.implicit_value import LogRatioTilt
from stages.decode.scorers.reward import RewardScorer
from stages.decode.values.scalar import HeadValues
from stages.engine.distribution import Distribution
from stages.engine.engine import Engine
from stages.engine.fork import branch_of, tap_of
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling, uniforms
from stages.engine.terms import Candidates, Terms
from stages.learn.values.scalar_head import ValueHead
from stages.records import Prompt

TOLERANCE = 1e-5
EXAMPLES = int(os.environ.get("TILT_EXAMPLES", "0"))
LIMIT = 5
"""Tokens of a response."""


def few(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=EXAMPLES or examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # shrinking would take minutes; what a failing example is made of is small as it is
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@st.composite
def shapes(draw: st.DrawFn, **fixed: Any) -> dict[str, Any]:
    """Arguments of `make_family`."""
    heads = draw(st.sampled_from([1, 2, 4]))
    shape = {
        "name": draw(st.sampled_from(["llama", "qwen3", "mistral", "gemma3_text", "gpt2", "phi", "llama eager"])),
        "seed": draw(st.integers(0, 2**16)),
        "layers": draw(st.integers(1, 4)),
        "heads": heads,
        "shared": draw(st.sampled_from([n for n in (1, 2, 4) if n <= heads])),
        "window": draw(st.integers(2, 6)),
        "vocabulary": draw(st.integers(8, 40)),
    }
    return shape | fixed


batches = st.lists(st.integers(1, 9), min_size=1, max_size=4)
"""Lengths of prompts."""


def random_prompts(lengths: Sequence[int], policy: LoadedLM, seed: int) -> list[tuple[str, list[int]]]:
    draw = np.random.default_rng(seed)
    return [(f"p{i}", draw.integers(3, policy.vocabulary, n).tolist()) for i, n in enumerate(lengths)]


def random_head(policy: LoadedLM, layer: int, seed: int) -> ValueHead:
    head = ValueHead(size=policy.config.hidden_size, rewards=("proxy",), layer=layer)
    weight = torch.randn(head.last.weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        head.last.weight.copy_(weight / np.sqrt(policy.config.hidden_size))
    return head.requires_grad_(False)


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


# cached = fresh


@dataclass
class Step:
    width: int
    leaves: int
    """Which row leaves after it, counted round; none where it says more than twice the rows."""
    enters: int
    """How many rows of a prompt enter before it."""


steps = st.builds(Step, st.integers(1, 5), st.integers(0, 7), st.integers(0, 2))


@torch.inference_mode()
def fresh(policy: LoadedLM, rows: list[list[int]]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits (F, V) and hidden states, (F, D) a layer, after the last tokens of F sequences of one length."""
    out = policy.model(input_ids=torch.tensor(rows), output_hidden_states=True, use_cache=False)
    return out.logits[:, -1], tuple(state[:, -1] for state in out.hidden_states)


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@few(25)
@given(shape=shapes(), lengths=batches, script=st.lists(steps, min_size=2, max_size=6), data=st.data())
@torch.inference_mode()
def test_cached_is_fresh(
    make_family: Callable[..., LoadedLM],
    shape: dict[str, Any],
    lengths: list[int],
    script: list[Step],
    data: st.DataObject,
) -> None:
    """Whatever enters, leaves and is chosen: logits, a state of the policy and one of a model with other upper layers
    are those of fresh forwards, for every candidate."""
    policy = make_family(**shape)
    own = data.draw(st.integers(0, policy.layers), "layer")
    reads: list[tuple[LoadedLM, int, Any]] = [(policy, own, own)]
    if policy.layers > 1 and data.draw(st.booleans(), "with a fork"):
        fork = data.draw(st.integers(1, policy.layers - 1), "fork")
        model = copy.deepcopy(policy.model)
        path = policy.sections.path
        for parameter in model.base_model.get_submodule(f"{path}.{fork}").parameters():
            parameter.mul_(1.25)
        whole = LoadedLM(policy.folder, model, policy.tokenizer, "policy.folder")
        branch = branch_of(policy, whole, "policy.folder")
        assert branch is not None
        assert branch.first == fork
        layer = data.draw(st.integers(fork + 1, policy.layers), "layer above the fork")
        reads.append((whole, layer, tap_of(branch, layer)))
    lane = Lane(policy)
    lane.wants_logits = True
    places = [(model, layer, lane.tap(read)) for model, layer, read in reads]
    draw = np.random.default_rng(shape["seed"])
    lane.prompts = [ids for _, ids in random_prompts(lengths, policy, shape["seed"])]
    lane.begin(2 * len(script) + 2, len(script), 5)
    rows: list[list[int]] = []

    def enter(prompt: int, count: int) -> None:
        ready = lane.prefill([prompt, (prompt + 1) % len(lengths)])  # the other one only pads
        lane.enter([(ready[0], count)], len(lane.prompts[prompt]))
        rows.extend(list(lane.prompts[prompt]) for _ in range(count))

    def assert_newest() -> None:
        assert lane.logits is not None
        for row, prefix in enumerate(rows):
            assert_near(lane.logits[row], fresh(policy, [prefix])[0][0])
            for model, layer, place in places:
                assert_near(lane.states[place][row], fresh(model, [prefix])[1][layer][0])

    enter(0, 1)
    for number, step in enumerate(script):
        if step.enters:
            enter((number + 1) % len(lengths), step.enters)
        assert_newest()
        ids = torch.from_numpy(draw.integers(0, policy.vocabulary, (len(rows), step.width)))
        out = lane.forward(ids)
        for row, prefix in enumerate(rows):
            alternatives = [[*prefix, token] for token in ids[row].tolist()]
            for model, layer, place in places:
                assert_near(out.states[place][row], fresh(model, alternatives)[1][layer])
        chosen = torch.from_numpy(draw.integers(0, step.width, len(rows)))
        lane.cache.keep(chosen)
        stay = list(range(len(rows)))
        if len(rows) > 1 and step.leaves < 2 * len(rows):
            gone = step.leaves % len(rows)
            stay[gone] = stay[-1]  # the last row fills its place
            stay.pop()
        rows = [[*rows[row], int(ids[row, chosen[row]])] for row in stay]
        lane.select(stay, states=False)
        lane.take(out.at(torch.tensor(stay), chosen[stay]))
    assert_newest()


# guided sampling


@dataclass(frozen=True)
class Guide:
    beta: float
    k: int
    outside: str
    shift: float = 0.0


def run(
    policy: LoadedLM,
    prompts: list[tuple[str, list[int]]],
    sampling: Sampling,
    rows: int,
    head: ValueHead | None = None,
    guide: Guide | None = None,
) -> list[Response]:
    lanes = Lanes(policy)
    terms = Terms()
    if guide is not None and head is not None:
        moved = copy.deepcopy(head)
        moved.last.bias.add_(guide.shift)
        values = HeadValues("head", lanes.policy, lanes.policy.tap(head.layer), moved, (guide.beta,), "identity")
        terms = Terms([], [values], Candidates(guide.k, guide.outside))
    return Engine(lanes, Draw(sampling, 0, rows), terms).run(prompts, 2)


@few(12)
@given(shape=shapes(), lengths=batches, rows=st.integers(2, 9), data=st.data())
def test_guided_sampling(
    make_family: Callable[..., LoadedLM],
    oracle_step: Callable[..., tuple[np.ndarray, np.ndarray]],
    shape: dict[str, Any],
    lengths: list[int],
    rows: int,
    data: st.DataObject,
) -> None:
    policy = make_family(**shape)
    prompts = random_prompts(lengths, policy, shape["seed"])
    head = random_head(policy, data.draw(st.integers(0, policy.layers), "layer"), shape["seed"])
    guide = Guide(
        data.draw(st.floats(-4, 4), "beta"),
        data.draw(st.integers(1, policy.vocabulary), "k"),
        data.draw(st.sampled_from(["mean", "prefix", "drop"]), "outside"),
    )
    temperature, top_k = data.draw(st.floats(0.5, 2), "temperature"), data.draw(st.sampled_from([0, 0, 5]), "top_k")
    sampling = Sampling(temperature=temperature, top_k=top_k, max_new_tokens=LIMIT)

    def sampled(rows: int, **changed: Any) -> list[Response]:
        return run(policy, prompts, sampling, rows, head, Guide(**{**vars(guide), **changed}))

    base, guided, alone = run(policy, prompts, sampling, rows), sampled(rows), sampled(1)
    # batched = one at a time
    assert tokens(guided) == tokens(alone)
    assert tokens(base) == tokens(run(policy, prompts, sampling, 1))
    assert [row.kl for row in guided] == pytest.approx([row.kl for row in alone], abs=1e-4)
    assert [(row.tokens, row.flops) for row in guided] == [(row.tokens, row.flops) for row in alone]
    # β = 0 and k = 1 are the base
    for still in ({"beta": 0.0, "outside": "mean"}, {"beta": 0.0, "outside": "prefix"}, {"k": 1, "outside": "mean"}):
        same = sampled(rows, **still)
        assert tokens(same) == tokens(base)
        assert max(abs(row.kl) for row in same) < 1e-9
    # a constant added to V changes nothing
    shifted = sampled(rows, shift=3.0)
    assert tokens(shifted) == tokens(guided)
    assert [row.kl for row in shifted] == pytest.approx([row.kl for row in guided], abs=1e-3)
    # what is reported is what fresh forwards give
    with torch.inference_mode():
        for row in guided:
            prefix, logprob, kl = list(prompts[row.prompt][1]), 0.0, 0.0
            for token in row.token_ids:
                p, pi = oracle_step(policy, head, prefix, guide, sampling)
                live = pi > 0
                logprob, kl = logprob + np.log(pi[token]), kl + (pi[live] * np.log(pi[live] / p[live])).sum()
                prefix.append(token)
            assert row.logprob == pytest.approx(logprob, abs=2e-4)
            assert row.kl == pytest.approx(kl, abs=2e-4)


# search


class Texts:
    """A reward that tells texts apart: the sum of (place + 1)·character code, modulo 97."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        return np.array([sum((i + 1) * ord(c) for i, c in enumerate(text)) % 97 for text in responses], dtype=float)


@few(10)
@given(
    shape=shapes(),
    lengths=batches,
    rows=st.integers(1, 20),
    w=st.integers(1, 3),
    k=st.integers(1, 3),
    chunk=st.integers(1, LIMIT),
    weight=st.floats(-1, 1.5),
)
def test_search(
    make_family: Callable[..., LoadedLM],
    shape: dict[str, Any],
    lengths: list[int],
    rows: int,
    w: int,
    k: int,
    chunk: int,
    weight: float,
) -> None:
    policy = make_family(**shape)
    prompts = random_prompts(lengths, policy, shape["seed"])
    asked = [Prompt(id=name, part="test", text=name) for name, _ in prompts]
    sampling, scorer = Sampling(max_new_tokens=LIMIT), RewardScorer(Texts())

    def searched(
        search: Any, terms: Terms | None = None, rows: int = rows, lanes: Lanes | None = None
    ) -> list[Response]:
        return search.decode(lanes or Lanes(policy), Draw(sampling, 0, rows), terms or Terms(), asked, prompts, 2)

    # one beam and one successor are sampling, through the engine of chunks too
    plain = run(policy, prompts, sampling, rows)
    assert tokens(searched(ChunkSearch(1, 1, chunk, scorer))) == tokens(plain)
    lanes = Lanes(policy)
    chunks = Chunks(scorer.open(lanes), beams=1, successors=1, chunk=chunk)
    assert tokens(Engine(lanes, Draw(sampling, 0, rows)).run(prompts, 2, asked, schedule=chunks)) == tokens(plain)
    # chunks as long as the response are Best-of-N
    best = searched(BestOf(w * k, Texts()))
    for whole in (None, LIMIT, LIMIT + 7):
        assert tokens(searched(ChunkSearch(w, k, whole, scorer))) == tokens(best)
    # groups do not disturb each other
    one, many = (searched(ChunkSearch(w, k, chunk, scorer), rows=n) for n in (1, 64))
    assert tokens(one) == tokens(many)
    # without a scorer it is emulated fine-tuning: draws from z_base + w·(z_tuned − z_base), by fresh forwards
    tuned = make_family(**(shape | {"name": "llama", "seed": shape["seed"] + 1}))
    lanes = Lanes(policy)
    lane = Lane(tuned)
    lane.eager = lane.wants_logits = True
    lanes.all.append(lane)
    encode = lanes.encode
    lanes.encode = lambda encoded, _, limit: encode(encoded, None, limit)  # type: ignore[method-assign]  # no text here
    implicit = Terms([LogRatioTilt(lanes, lane, lanes.policy, weight)])
    for row in searched(ChunkSearch(w, k, chunk, None), implicit, lanes=lanes):
        name, ids = prompts[row.prompt]
        response: list[int] = []
        for u in uniforms(0, name, row.sample, LIMIT):
            (base,), (other,) = (fresh(model, [[*ids, *response]])[0] for model in (policy, tuned))
            mixed = (base + weight * (other - base))[None]
            response.append(int(Distribution.of(mixed, Sampling()).draw(torch.from_numpy(u[:1]))))
            if response[-1] == policy.eos:
                break
        assert row.token_ids == response
