"""The losses of PPO, DPO, FUDGE, CD and of the soft value, against arithmetic done by hand."""

import math

import pytest
import torch

from stages.learn.policies.advantages import gae, whiten
from stages.learn.policies.dpo_loss import ResponseLogprobs, dpo_loss, implicit_rewards
from stages.learn.policies.ppo_loss import KLCoefficient, kl_estimate, penalised_rewards, policy_loss, value_loss
from stages.learn.values.prefix_losses import bellman_targets, fudge_loss, soft_loss, soft_value

NAN = float("nan")


def log(x: float) -> torch.Tensor:
    return torch.tensor([math.log(x)])


# GAE


def test_advantages_by_hand_and_without_padding():
    # V = 1 2 4, r = 0 0 3, λ = ½, γ = 1: δ = 2−1, 4−2, 3−4 = 1, 2, −1; A₂ = −1, A₁ = 2 − ½ = 1.5, A₀ = 1 + .75 = 1.75
    values = torch.tensor([[1.0, 2.0, 4.0], [5.0, NAN, NAN]])
    rewards = torch.tensor([[0.0, 0.0, 3.0], [7.0, NAN, NAN]])
    advantages, returns = gae(values, rewards, torch.tensor([3, 1]), lam=0.5)
    assert advantages[0].tolist() == [1.75, 1.5, -1.0]
    assert returns[0].tolist() == [2.75, 3.5, 3.0]
    assert advantages[1].tolist() == [2.0, 0.0, 0.0]  # 7 − 5
    assert returns[1].tolist() == [7.0, 0.0, 0.0]


def test_monte_carlo_advantages_are_return_minus_value():
    advantages, returns = gae(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 3.0]]), torch.tensor([2]), lam=1.0)
    assert advantages.tolist() == [[2.5, 1.0]]  # 3.5 − 1, 3 − 2
    assert returns.tolist() == [[3.5, 3.0]]


def test_a_discount_counts_once_a_step():
    # γ = ½, λ = 1, V = 0: returns 1 + ½·2 = 2 and 2
    advantages, _ = gae(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]), torch.tensor([2]), lam=1.0, gamma=0.5)
    assert advantages.tolist() == [[2.0, 2.0]]


def test_whitening_reads_no_padding():
    found = whiten(torch.tensor([[1.0, 3.0, NAN], [5.0, NAN, NAN]]), torch.tensor([[1, 1, 0], [1, 0, 0]]).bool())
    deviation = math.sqrt(8 / 3)  # of 1, 3, 5
    assert found[0, :2].tolist() == pytest.approx([-2 / deviation, 0])
    assert found[1].tolist() == pytest.approx([2 / deviation, 0, 0])


# PPO


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


# DPO


def pair(policy: float, reference: float, length: int) -> ResponseLogprobs:
    return ResponseLogprobs(torch.tensor([policy]), torch.tensor([reference]), torch.tensor([length]))


def test_dpo_at_the_reference_is_log_2_whatever_beta():
    for beta in (0.05, 1.0):
        assert dpo_loss(pair(-9, -9, 3), pair(-4, -4, 2), beta).item() == pytest.approx(math.log(2))


def test_dpo_length_normalisation_divides_each_ratio_by_its_own_length():
    # ratios 6/3 = 2 and 2/2 = 1, β = 1: −log σ(1)
    found = dpo_loss(pair(-4, -10, 3), pair(-8, -10, 2), 1.0, length_normalised=True)
    assert found.item() == pytest.approx(-math.log(1 / (1 + math.exp(-1))))
    assert implicit_rewards(pair(-4, -10, 3), 0.5, True).tolist() == [1.0]


def test_smoothed_dpo_is_least_at_a_finite_margin():
    # derivative 0 where σ(h) = 1 − ε: h = log(.9/.1)
    best = math.log(9)
    near = [dpo_loss(pair(h, 0, 1), pair(0, 0, 1), 1.0, 0.1).item() for h in (best - 0.2, best, best + 0.2)]
    assert near[1] < min(near[0], near[2])


# FUDGE, CD, soft


def test_fudge_is_least_at_the_log_odds_of_the_attribute():
    # Of four responses through a prefix three have the attribute: the best logit is log(3/1).
    logit = torch.tensor(math.log(3), requires_grad=True)
    fudge_loss(logit.expand(4), torch.tensor([1.0, 1.0, 1.0, 0.0])).mean().backward()
    assert logit.grad is not None
    assert logit.grad.item() == pytest.approx(0, abs=1e-6)


def test_bellman_target_is_an_expectation_not_a_sample():
    values = torch.tensor([[[1.0, 5.0], [2.0, 4.0], [NAN, NAN]]])
    probabilities = torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]]])
    found = bellman_targets(values, probabilities, torch.tensor([7.0]), torch.tensor([2]))
    assert found.tolist() == [[3.0, 3.5, 7.0]]  # ½·1 + ½·5, ¼·2 + ¾·4, the reward after the last token


def test_bellman_target_carries_no_gradient():
    values = torch.zeros(1, 2, 3, requires_grad=True)
    assert not bellman_targets(values, torch.full((1, 2, 3), 1 / 3), torch.ones(1), torch.tensor([1])).requires_grad


@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
def test_soft_loss_is_least_at_the_soft_value(eta: float):
    # Rewards 0 and 1 with probability .95 and .05: the gradient at η·log(.95 + .05·e^{1/η}) is zero.
    value = torch.tensor(soft_value([0.0, 1.0], [0.95, 0.05], eta), dtype=torch.float64, requires_grad=True)
    losses = soft_loss(value.expand(2), torch.tensor([0.0, 1.0]).double(), eta)
    (losses * torch.tensor([0.95, 0.05]).double()).sum().backward()
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(0, abs=1e-6)


def test_soft_loss_near_zero_is_the_squared_error_and_never_explodes():
    assert soft_loss(torch.tensor(0.0), torch.tensor(0.01), 1.0).item() == pytest.approx(0.5e-4, rel=0.01)
    value = torch.tensor(0.0, requires_grad=True)
    soft_loss(value, torch.tensor(400.0), 1.0).backward()
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(1 - math.exp(5), rel=1e-5)


@pytest.mark.parametrize(("beta", "left"), [(1, 0.504394), (5, 0.164553), (10, 0.002460)])
def test_the_soft_value_of_the_published_tree(beta: float, left: float):
    # p(L) = p(R) = ½; left pays .1, right pays 1 with probability .05. P(L) = σ(β·(V(L) − V(R))) with η = 1/β.
    # (VAS, with V(R) = .05, has .512497, .562177, .622459: it goes left the more, the larger β.)
    right = soft_value([0.0, 1.0], [0.95, 0.05], 1 / beta)
    assert 1 / (1 + math.exp(-beta * (0.1 - right))) == pytest.approx(left, abs=5e-7)
