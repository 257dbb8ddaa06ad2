"""Searches over the tiny policy, and a plain reference: one prompt at a time, no cache, a fresh forward a figure."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.decode.chunk_search import ChunkSearch
from stages.decode.scorers.explicit import ExplicitScorer
from stages.decode.scorers.implicit import ImplicitScorer
from stages.decode.scorers.reward import RewardScorer
from stages.engine.causal_lm import CausalLM
from stages.engine.distribution import Distribution
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling, uniforms
from stages.engine.terms import Terms
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


@pytest.fixture(scope="session")
def asked(prompts: Encoded, policy: LoadedLM) -> list[Prompt]:
    return [Prompt(id=name, part="test", text=str(policy.tokenizer.decode(ids))) for name, ids in prompts]


@pytest.fixture(scope="session")
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
def search_one(
    policy: LoadedLM, name: str, prompt: list[int], score: ScoreOf, w: int, k: int, chunk: int, official: bool = False
) -> tuple[list[int], float]:
    """Best response and its score, on lists of tokens.

    W·K rows draw up to `chunk` tokens each, row j from the prompt's random numbers of sample j. What has ended joins
    the pool; of the others, equal ones taken once, the W best go on as K rows each. When none goes on, the best of the
    pool is the answer. `official`: the ended ones of the last comparison compete again, K times each, and only the W
    best of all stay.
    """
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
def logprob_of(model: Any, prompt: list[int], response: list[int]) -> float:
    logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0].double()
    logp = logits.log_softmax(-1)
    return sum(float(logp[len(prompt) + i - 1, token]) for i, token in enumerate(response))


@torch.inference_mode()
def state_of(model: Any, ids: list[int], layer: int) -> torch.Tensor:
    out = model(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True)
    return out.hidden_states[layer][0, -1]


@pytest.fixture(scope="session")
def reference() -> Callable[..., tuple[list[int], float]]:
    """`reference(policy, prompt id, prompt, score, w, k, chunk, official=False)` → best response, its score."""
    return search_one


@pytest.fixture(scope="session")
def fresh_logprob() -> Callable[[Any, list[int], list[int]], float]:
    """`fresh_logprob(model, prompt, response)`: log-probability at temperature 1, nats."""
    return logprob_of


@pytest.fixture(scope="session")
def fresh_state() -> Callable[[Any, list[int], int], torch.Tensor]:
    """`fresh_state(model, ids, layer)` → (D,) hidden_states[layer] of the last token."""
    return state_of


Kind = tuple[Any, ScoreOf]
"""A scorer, and its score by fresh forwards."""


@pytest.fixture(scope="session")
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
            lambda p, r: logprob_of(tuned, p, r) - logprob_of(base, p, r),
        ),
        "implicit, untuned": (
            ImplicitScorer(CausalLM(tuned_model), CausalLM(small_model)),
            lambda p, r: logprob_of(tuned, p, r) - logprob_of(small, p, r),
        ),
        "explicit": (
            ExplicitScorer(head),
            lambda p, r: float(scalar(state_of(base, [*p, *r], scalar.layer))[0]),
        ),
        "explicit, wide": (
            ExplicitScorer(vocab_head),
            lambda p, r: float(wide(state_of(base, [*p, *r[:-1]], wide.layer))[r[-1]]),
        ),
        "explicit, separate": (
            ExplicitScorer(small_head, CausalLM(small_model)),
            lambda p, r: float(other(state_of(small, [*p, *r], other.layer))[0]),
        ),
    }
