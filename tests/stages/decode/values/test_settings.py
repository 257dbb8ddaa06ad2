"""What may be set about values: each check lets good settings through and says of bad ones what to do."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from stages.decode.values.settings import (
    require_candidates,
    require_one_strength,
    require_outside,
    require_rewards,
    require_strength,
    require_transform,
    transformed,
)
from stages.errors import BadInput


def line(act: Callable[..., Any], *given: Any) -> str:
    with pytest.raises(BadInput) as error:
        act(*given)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_logit_becomes_the_log_of_its_probability() -> None:
    """log σ(0) = log ½, log σ(log 3) = log ¾; another transform leaves values as they are."""
    logits = torch.tensor([0.0, math.log(3), -50.0], dtype=torch.float64)
    assert transformed(logits, "log_sigmoid").tolist() == pytest.approx([math.log(0.5), math.log(0.75), -50.0])
    assert torch.equal(transformed(logits, "identity"), logits)


def test_transforms() -> None:
    for transform in ("identity", "log_sigmoid"):
        require_transform(transform, "guide")
    assert line(require_transform, "exp", "guide") == "guide.transform: 'exp' is not one of identity, log_sigmoid"


def test_what_tokens_outside_the_candidates_get() -> None:
    for outside in ("mean", "prefix", "drop"):
        require_outside(outside, "guide")
    assert line(require_outside, "median", "guide") == "guide.outside: 'median' is not one of mean, prefix, drop"


@pytest.mark.parametrize(("beta", "bad"), [(math.nan, "nan"), ([1.0, math.inf], "inf"), (-math.inf, "-inf")])
def test_strengths_are_finite(beta: Any, bad: str) -> None:
    for good in (0, -2.5, [1.0, 0.0]):
        require_strength(good, "guide.beta")
    assert line(require_strength, beta, "guide.beta") == (
        f"guide.beta: {bad} is not a finite number; 0 is the base policy"
    )


def test_one_value_has_one_strength() -> None:
    assert require_one_strength(2, "guide.beta") == 2
    assert line(require_one_strength, [1.0, 2.0], "guide.beta") == (
        "guide.beta: 2 strengths for the one value of a head over the vocabulary; give a number"
    )


def test_candidates_are_at_most_the_vocabulary() -> None:
    require_candidates(400, 400, "guide")
    assert line(require_candidates, 401, 400, "guide") == (
        "guide.k: 401 candidates, but the vocabulary has 400 tokens; choose k between 1 and 400"
    )


def test_rewards_are_all_or_those_that_are_named() -> None:
    names = ("proxy", "length")
    assert require_rewards(names, None, "guide") == ["proxy", "length"]
    assert require_rewards(names, "length", "guide") == ["length"]
    assert require_rewards(names, ["length", "proxy"], "guide") == ["length", "proxy"]
    assert line(require_rewards, names, ["proxy", "gold"], "guide") == (
        "guide.reward: the value model has no reward 'gold'; it has proxy, length"
    )
