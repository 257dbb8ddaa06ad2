"""Scalar heads on a lane: whose strength is whose, and what a value is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.decode.values.scalar import HeadValues, open_values, reward_strengths
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead

FOLDER = Path("value")
TWO = ValueHead(size=2, rewards=("proxy", "length"), layer=1)


@pytest.mark.parametrize(
    ("reward", "beta", "betas"),
    [
        (None, [1.0, 2.0], (1.0, 2.0)),
        ("length", 3.0, (0.0, 3.0)),
        ("proxy", [3.0], (3.0, 0.0)),
        (["length", "proxy"], [1.0, 2.0], (2.0, 1.0)),
        (["proxy", "proxy"], [1.0, 0.5], (1.5, 0.0)),
    ],
)
def test_strengths_stand_in_the_order_of_the_head(
    reward: str | Sequence[str] | None, beta: float | Sequence[float], betas: tuple[float, ...]
) -> None:
    """Each goes to the reward it was given for; one that is not named has none, one named twice the sum."""
    assert reward_strengths(TWO, FOLDER, reward, beta, "guide", "beta") == betas


@pytest.mark.parametrize(
    ("reward", "beta", "said"),
    [
        (None, 2.0, "guide.reward: the value model has several rewards (proxy, length); name one, or give beta as a"),
        (None, [1.0], "guide.beta: 1 strengths for 2 values of value (proxy, length); give one each"),
        ("length", [1.0, 2.0], "guide.beta: 2 strengths for 1 values of value (length); give one each"),
        ("gold", 1.0, "guide.reward: the value model has no reward 'gold'; it has proxy, length"),
    ],
)
def test_strengths_that_do_not_match_are_refused(reward: str | None, beta: float | list[float], said: str) -> None:
    with pytest.raises(BadInput) as error:
        reward_strengths(TWO, FOLDER, reward, beta, "guide", "beta")
    assert str(error.value).startswith(said)


def values(transform: str) -> HeadValues:
    """V = (h₀ + 2·h₁, −h₀) of the lane's second state."""
    head = ValueHead(size=2, rewards=("proxy", "length"), layer=1).requires_grad_(False)
    head.last.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.0]]))
    lane: Any = None
    return HeadValues("value", lane, 1, head, (1.0, 0.5), transform)


def test_values_by_hand() -> None:
    """h = (3, −1): 3 − 2 = 1 and −3, float64 whatever the states' dtype; log σ(0) = −.6931."""
    states = torch.tensor([[3.0, -1.0], [0.0, 0.0]])
    for dtype in (torch.float32, torch.bfloat16):
        found = values("identity").values((torch.full_like(states, 99.0), states.to(dtype)))
        assert (found.dtype, found.tolist()) == (torch.float64, [[1.0, -3.0], [0.0, 0.0]])
    assert values("log_sigmoid").values((states, states))[1].tolist() == pytest.approx([-0.693147] * 2, abs=1e-6)


def test_a_value_costs_two_flops_a_weight() -> None:
    """Two rewards of two weights and a bias each: 2·6."""
    assert values("identity").flops == 12.0


def test_a_head_over_the_vocabulary_is_no_scalar_one(policy: LoadedLM, vocab_head: Path) -> None:
    with pytest.raises(BadInput) as error:
        open_values(Lanes(policy), vocab_head, None, None, 1.0, "identity", "guide", eager=True)
    assert str(error.value) == f"guide.folder: {vocab_head} scores the whole vocabulary; use VocabValue for it"


def test_a_head_reads_its_layer_of_the_policy(policy: LoadedLM, make_head: Any) -> None:
    lanes = Lanes(policy)
    lower, upper = (
        open_values(lanes, make_head(layer=layer), None, None, 2.0, "identity", "guide", eager=True) for layer in (1, 2)
    )
    assert (lower.lane, upper.lane) == (lanes.policy, lanes.policy)
    assert (lower.place, upper.place, lanes.policy.taps) == (0, 1, [1, 2])
    assert upper.betas == (2.0,)
