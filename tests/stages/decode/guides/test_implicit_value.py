"""Emulated fine-tuning: logits of a tuned model on the policy's."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from stages.decode.guides.implicit_value import ImplicitValue
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.language_model import load_model
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.errors import BadInput

Prompts = list[tuple[str, list[int]]]
Decoder = Callable[..., list[Response]]
Refusal = Callable[..., BadInput]
WARM: dict[str, Any] = {"temperature": 0.7, "top_k": 40, "max_new_tokens": 4}


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


@pytest.mark.parametrize("with_untuned", [False, True])
def test_emulated_fine_tuning_mixes_logits_before_temperature(
    decode: Decoder,
    assert_fresh: Any,
    policy: LoadedLM,
    prompts: Prompts,
    tuned_model: Path,
    small_model: Path,
    with_untuned: bool,
) -> None:
    guide = ImplicitValue(CausalLM(tuned_model), CausalLM(small_model) if with_untuned else None, weight=0.3)
    rows = decode(guide, samples=1, **WARM)
    assert_fresh(rows, prompts, policy, Sampling(**WARM), [(guide, 1.0)])


# identities


def test_weight_zero_draws_the_base_tokens(decode: Decoder, tuned_model: Path) -> None:
    base = decode(samples=3)
    rows = decode(ImplicitValue(CausalLM(tuned_model), weight=0.0), samples=3)
    assert tokens(rows) == tokens(base)
    assert max(abs(row.kl) for row in rows) < 1e-9


@pytest.fixture(scope="module")
def padded(tiny_model: Path, tuned_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """`padded(which, more)`: the model "base" or "tuned" with `more` rows of padding in its embeddings, likely ones."""

    def make(which: str, more: int) -> Path:
        source = {"base": tiny_model, "tuned": tuned_model}[which]
        folder = tmp_path_factory.mktemp(which)
        tokenizer = AutoTokenizer.from_pretrained(source)
        model: Any = load_model(source, dtype="float32", device="cpu")
        model.resize_token_embeddings(len(tokenizer) + more, mean_resizing=False)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize(
    ("base", "tuned", "untuned"), [(8, 0, None), (8, 8, 0), (8, 0, 0), (0, 8, 0), (0, 0, 8), (8, 16, 0)]
)
def test_vocabularies_that_are_padded_differently(
    fresh_of: Callable[..., Any],
    prompts: Prompts,
    padded: Callable[[str, int], Path],
    base: int,
    tuned: int,
    untuned: int | None,
) -> None:
    """A weight of 0 is the base, padding and all; at any other, what one of the three lacks is never drawn."""
    policy = CausalLM(padded("base", base)).load("cpu")
    models = [CausalLM(padded("tuned", tuned)), None if untuned is None else CausalLM(padded("base", untuned))]

    def decoded(guide: ImplicitValue | None, sampling: Sampling) -> list[Response]:
        lanes = Lanes(policy)
        terms = Terms() if guide is None else guide.open(lanes, sampling)
        return Engine(lanes, Draw(sampling, 0, 16), terms).run(prompts, 3)

    alone = decoded(None, Sampling(max_new_tokens=6))
    assert tokens(decoded(ImplicitValue(*models, weight=0.0), Sampling(max_new_tokens=6))) == tokens(alone)
    fresh, shared = fresh_of(policy), policy.vocabulary - base
    for weight in (0.5, -0.5):
        sampling = Sampling(temperature=0.7, max_new_tokens=1)
        for row in decoded(ImplicitValue(*models, weight=weight), sampling):
            prefix = list(prompts[row.prompt][1])
            z = fresh.logits(Path(policy.folder), prefix)[:shared]
            above, below = (
                z if model is None else fresh.logits(Path(model.folder), prefix)[:shared] for model in models
            )
            mixed = (z + weight * (above - below)) / 0.7
            pi = np.exp(mixed - mixed.max()) / np.exp(mixed - mixed.max()).sum()
            assert row.token_ids[0] < shared
            assert row.logprob == pytest.approx(math.log(pi[row.token_ids[0]]), abs=2e-4)


def test_the_same_model_tuned_and_untuned_is_the_base(decode: Decoder, tuned_model: Path) -> None:
    rows = decode(ImplicitValue(CausalLM(tuned_model), CausalLM(tuned_model), weight=3.0))
    assert tokens(rows) == tokens(decode())


def test_weight_one_against_the_base_itself_is_the_tuned_model(
    decode: Decoder, policy: LoadedLM, prompts: Prompts, tuned_model: Path
) -> None:
    """z_base + (z_tuned − z_base) = z_tuned."""
    tuned = CausalLM(tuned_model).load("cpu")
    alone = decode(samples=3)  # another policy, the same uniforms
    direct = Engine(Lanes(tuned), Draw(Sampling(max_new_tokens=6), 0, 4)).run(prompts, 3)
    guided = decode(ImplicitValue(CausalLM(tuned_model)), samples=3)
    assert tokens(guided) == tokens(direct)
    assert tokens(guided) != tokens(alone)
    assert [row.logprob for row in guided] == pytest.approx([row.logprob for row in direct], abs=1e-4)


def test_emulated_fine_tuning_costs_one_token_of_each_model_a_step(
    decode: Decoder, prompts: Prompts, tuned_model: Path, small_model: Path
) -> None:
    length = len(prompts[1][1])
    both = decode(ImplicitValue(CausalLM(tuned_model), CausalLM(small_model)), only=prompts[1:2])
    assert [row.tokens for row in both] == [3 * length + 3 * 5, 3 * 5]  # the sixth token needs no forward
    one = decode(ImplicitValue(CausalLM(tuned_model)), only=prompts[1:2])
    assert [row.tokens for row in one] == [2 * length + 2 * 5, 2 * 5]


# refusals


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda f: ImplicitValue(CausalLM(f), weight=math.inf), "guide.weight"),
        (lambda f: ImplicitValue(CausalLM(f)), "guide.tuned.folder"),
        (lambda f: ImplicitValue(CausalLM(f, quantisation="2bit")), "guide.tuned.folder"),
    ],
)
def test_bad_settings_are_named(refusal: Refusal, policy: LoadedLM, head: Path, make: Any, field: str) -> None:
    assert refusal(make(head), policy).field == field
