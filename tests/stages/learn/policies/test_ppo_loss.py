"""The losses of PPO, its KL penalty and its clip fraction, against arithmetic done by hand."""

import math

import pytest
import torch

from stages.learn.policies.ppo_loss import (
    KLCoefficient,
    clipped,
    kl_estimate,
    penalised_rewards,
    policy_loss,
    value_loss,
)

NAN = float("nan")


def log(x: float) -> torch.Tensor:
    return torch.tensor([math.log(x)])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 2.0, -2.0, -2.0),  # inside the clip: −ρA, and its derivative by log ρ is −ρA too
        (1.5, 2.0, -2.4, 0.0),  # better by more than ε = .2: held at 1.2, nothing more to gain
        (0.5, 2.0, -1.0, -1.0),  # worse than before: not clipped, for the minimum is the real one
        (0.5, -2.0, 1.6, 0.0),  # a bad token made rarer than .8: enough
        (1.5, -2.0, 3.0, 3.0),
    ],
)
def test_clipped_surrogate_and_its_gradient(ratio: float, advantage: float, loss: float, gradient: float):
    logprob = log(ratio).requires_grad_()
    found = policy_loss(logprob, torch.zeros(1), torch.tensor([advantage]), clip=0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert logprob.grad is not None
    assert logprob.grad.item() == pytest.approx(gradient)


def test_value_loss_takes_the_worse_of_clipped_and_not():
    one = torch.ones(1)
    # V within ε of the old one: plain ½(V − R)² = ½·.81
    assert value_loss(1.1 * one, one, 2 * one, 0.2).item() == pytest.approx(0.405)
    # V = 3, old 1: clipped to 1.2; ½·max(1, .64) = ½
    assert value_loss(3 * one, one, 2 * one, 0.2).item() == pytest.approx(0.5)


def test_penalised_rewards_add_up_to_score_minus_penalty():
    logprobs, reference = torch.tensor([[-1.0, -2.0, NAN]]), torch.tensor([[-3.0, -1.0, NAN]])
    found = penalised_rewards(torch.tensor([5.0]), logprobs, reference, torch.tensor([2]), beta=0.5)
    assert found.tolist() == [[-1.0, 5.5, 0.0]]  # −½·2, −½·(−1) + 5


def test_kl_estimate_is_exact_in_expectation():
    # π_old = (.6, .4), π = (.3, .7): Σ π_old·(ρ − 1 − log ρ) = KL(π_old ‖ π) = .6·log 2 + .4·log(4/7) = .19204
    old, new = torch.tensor([0.6, 0.4]), torch.tensor([0.3, 0.7])
    each = kl_estimate(new.log(), old.log())
    assert (each >= 0).all()
    assert float((old * each).sum()) == pytest.approx(0.6 * math.log(2) + 0.4 * math.log(4 / 7), abs=1e-6)


def test_adaptive_coefficient_moves_towards_its_target_and_a_fixed_one_stays():
    coefficient = KLCoefficient(2.0, target=5.0)
    assert coefficient.update(5.0) == 2.0
    assert coefficient.update(5.5) == pytest.approx(2.0 * 1.01)  # error .1, gain .1
    assert coefficient.update(0.0) == pytest.approx(2.0 * 1.01 * 0.98)  # error −1, held at −.2
    assert KLCoefficient(2.0).update(100.0) == 2.0


def test_a_token_is_clipped_where_its_ratio_leaves_the_interval_on_either_side_whatever_its_advantage():
    # ε = .25: ρ = .7 | .8 1 1.2 | 1.3, and of these five two lie outside of [.75, 1.25]
    ratios = torch.tensor([0.7, 0.8, 1.0, 1.2, 1.3])
    found = clipped(ratios.log(), torch.zeros(5), 0.25)
    assert found.tolist() == [True, False, False, False, True]
    assert float(found.float().mean()) == pytest.approx(0.4)
    # it is the ratio that counts, not where either policy stands
    assert clipped(ratios.log() - 3.0, torch.full((5,), -3.0), 0.25).tolist() == found.tolist()
