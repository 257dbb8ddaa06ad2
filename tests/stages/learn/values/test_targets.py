"""What each target asks of values, against arithmetic done by hand, and which head can learn it."""

import math

import pytest
import torch

from stages.errors import BadInput
from stages.learn.values.targets import TARGETS, Batch, Bellman, Fudge, Settings, Soft, TdLambda, target_named


def never() -> torch.Tensor:
    raise AssertionError("this target needs no such thing")


def batch(values: list[list[float]], rewards: list[float], last: list[int]) -> Batch:
    """Of one reward."""
    return Batch(torch.tensor(values)[..., None], torch.tensor(rewards)[:, None], torch.tensor(last), never, never)


def test_td_lambda_is_half_the_squared_distance_to_the_return():
    # V = 2 1 4, r = 3, λ = ½: returns 2.25, 3.5, 3, so ½·(.25², 2.5², 1²)
    losses = TdLambda(0.5).losses(batch([[2.0, 1.0, 4.0]], [3.0], [2]))[0, :, 0]
    assert losses.tolist() == pytest.approx([0.03125, 3.125, 0.5])


def test_fudge_asks_every_state_whether_the_reward_will_be_above_the_mean():
    # z-scored rewards 1.5 (yes) and −.1 (no), logits 0: log 2 each; logit 2: log(1 + e⁻²) for yes, 2 more for no
    losses = Fudge().losses(batch([[0.0, 2.0], [0.0, 2.0]], [1.5, -0.1], [1, 1]))[..., 0]
    yes = math.log1p(math.exp(-2))
    assert losses[0].tolist() == pytest.approx([math.log(2), yes])
    assert losses[1].tolist() == pytest.approx([math.log(2), yes + 2])


def test_soft_asks_every_state_for_the_final_reward():
    # η = 2, r = 2, V = 0 and 2: d = 1 and 0, so 4·(e − 2) and 0
    losses = Soft(2.0).losses(batch([[0.0, 2.0]], [2.0], [1]))[0, :, 0]
    assert losses.tolist() == pytest.approx([4 * (math.e - 2), 0])


def test_bellman_asks_for_what_pi_0_expects_of_the_next_token_and_for_the_reward_at_the_end():
    # Two tokens; s₁ has V = 1. From s₁ the tokens are worth 2 and 6, π₀ = ¾ and ¼: target 3. s₂, V = 4, is the last: 5.
    found = torch.tensor([[[0.0, 0.0], [2.0, 6.0], [9.0, 9.0]]], requires_grad=True)
    asked: list[torch.Tensor] = []

    def distribution(final: torch.Tensor) -> torch.Tensor:
        asked.append(final)
        return torch.tensor([[[0.5, 0.5], [0.75, 0.25], [0.5, 0.5]]])

    values = torch.tensor([[[1.0], [4.0]]], requires_grad=True)
    final = torch.zeros(1, 3, 8)
    given = Batch(values, torch.tensor([[5.0]]), torch.tensor([1]), lambda: found, lambda: final)
    losses = Bellman(distribution).losses(given)
    assert losses[0, :, 0].tolist() == [0.5 * (1 - 3) ** 2, 0.5 * (4 - 5) ** 2]
    assert asked[0] is final
    losses.sum().backward()
    assert values.grad is not None
    assert values.grad[0, :, 0].tolist() == [-2.0, -1.0]  # V − target
    assert found.grad is None  # no gradient through the target


def test_only_bellman_needs_a_head_over_the_vocabulary_and_pi_0():
    settings = Settings(0.95, 1.0, lambda: torch.sigmoid)
    for name, kind in TARGETS.items():
        target = kind.of(settings)
        target.check(over_vocabulary=True)
        if name == "bellman":
            with pytest.raises(BadInput, match=r"^target: CD's Bellman target .* needs head=vocab"):
                target.check(over_vocabulary=False)
        else:
            target.check(over_vocabulary=False)
        assert kind.final_states is (name == "bellman")


def test_a_target_takes_its_settings_and_loads_pi_0_only_where_it_is_read():
    settings = Settings(0.7, 2.5, never)  # type: ignore[arg-type]
    assert TdLambda.of(settings) == TdLambda(0.7)
    assert Soft.of(settings) == Soft(2.5)
    assert Fudge.of(settings) == Fudge()
    with pytest.raises(AssertionError, match="no such thing"):
        Bellman.of(settings)


def test_a_name_that_no_target_has_is_refused():
    assert target_named("soft") is Soft
    with pytest.raises(BadInput, match=r"^target: 'q' is no target; choose one of td_lambda, fudge, soft, bellman"):
        target_named("q")
