"""The values of the k likeliest tokens tilt them; what is refused names its key."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.decode.guides.scalar_value import ScalarValue
from stages.engine.causal_lm import CausalLM
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.values.scalar_head import fingerprint

Prompts = list[tuple[str, list[int]]]
Decoder = Callable[..., list[Response]]
Refusal = Callable[..., BadInput]
WARM: dict[str, Any] = {"temperature": 0.7, "top_k": 40, "max_new_tokens": 4}


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


def test_a_value_on_another_model_steps_beside_the_policy(
    decode: Decoder, assert_fresh: Any, policy: LoadedLM, prompts: Prompts, small_model: Path, make_head: Any
) -> None:
    head = make_head(layer=1, size=16, trunk=fingerprint(small_model))
    guide = ScalarValue(head, beta=2.0, k=6, model=CausalLM(small_model))
    assert_fresh(decode(guide, samples=1, **WARM), prompts, policy, Sampling(**WARM), [], guide)


@pytest.mark.parametrize(
    "options", [{"transform": "log_sigmoid"}, {"compat": "official"}, {"outside": "drop"}, {"beta": [1.5, -1.0]}]
)
def test_options_of_a_scalar_value(
    decode: Decoder, assert_fresh: Any, policy: LoadedLM, prompts: Prompts, make_head: Any, options: dict[str, Any]
) -> None:
    rewards = ("proxy", "length") if "beta" in options else ("proxy",)
    head = make_head(rewards=rewards, target="fudge" if "transform" in options else "td_lambda")
    guide = ScalarValue(head, **{"beta": 2.0, "k": 6, **options})
    assert_fresh(decode(guide, samples=1, **WARM), prompts, policy, Sampling(**WARM), [], guide)


def test_a_separate_value_costs_candidates_there_and_one_token_of_the_policy(
    decode: Decoder, prompts: Prompts, small_model: Path, make_head: Any
) -> None:
    """k = 4: four candidates and one from outside in the value model, then the chosen one in the policy."""
    guide = ScalarValue(make_head(layer=2, size=16, trunk=fingerprint(small_model)), k=4, model=CausalLM(small_model))
    (_, second) = decode(guide, only=prompts[1:2])
    assert second.tokens == 6 * 5 + 5


# refusals


def test_candidates_must_fit_the_vocabulary(refusal: Refusal, policy: LoadedLM, head: Path) -> None:
    error = refusal(ScalarValue(head, k=60000), policy)
    assert error.field == "guide.k"
    assert error.problem.startswith(f"60000 candidates, but the vocabulary has {policy.vocabulary} tokens; ")
    ScalarValue(head, k=policy.vocabulary).open(Lanes(policy), Sampling())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"k": 0}, "guide.k"),
        ({"k": 1, "force_eos_candidate": True}, "guide.k"),
        ({"beta": math.nan}, "guide.beta"),
        ({"beta": math.inf}, "guide.beta"),
        ({"outside": "median"}, "guide.outside"),
        ({"reward": "gold"}, "guide.reward"),
        ({"beta": [1.0, 2.0, 3.0]}, "guide.beta"),
        ({"beta": [1.0, math.nan]}, "guide.beta"),
        ({"transform": "exp"}, "guide.transform"),
        ({"compat": "trl"}, "guide.compat"),
    ],
)
def test_bad_settings_are_named(
    refusal: Refusal, policy: LoadedLM, head: Path, settings: dict[str, Any], field: str
) -> None:
    assert refusal(ScalarValue(head, **settings), policy).field == field


def test_a_folder_without_a_value_model_is_refused(refusal: Refusal, policy: LoadedLM, tmp_path: Path) -> None:
    assert refusal(ScalarValue(tmp_path), policy).field == "guide.folder"


def test_one_of_several_rewards_must_be_named(refusal: Refusal, policy: LoadedLM, make_head: Any) -> None:
    both = make_head(rewards=("proxy", "length"))
    assert refusal(ScalarValue(both), policy).field == "guide.reward"
    lanes = Lanes(policy)
    opened = ScalarValue(both, reward="length", beta=2.0).open(lanes, Sampling())
    assert opened.scalar[0].betas == (0, 2)


def test_a_head_over_the_vocabulary_is_another_guide(refusal: Refusal, policy: LoadedLM, vocab_head: Path) -> None:
    assert "use VocabValue" in refusal(ScalarValue(vocab_head), policy).problem
