"""FUDGE's loss, Controlled Decoding's targets and the soft value, against arithmetic done by hand."""

import math

import pytest
import torch

from stages.learn.values.prefix_losses import bellman_targets, fudge_loss, soft_loss

NAN = float("nan")


def soft_value(rewards: list[float], probabilities: list[float], eta: float) -> float:
    """η·log Σ p·exp(r/η) of a known distribution."""
    return eta * math.log(sum(p * math.exp(r / eta) for r, p in zip(rewards, probabilities, strict=True)))


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


def best(rewards: list[float], probabilities: list[float], eta: float) -> float:
    """Where the expectation of `soft_loss` is least, by halving an interval in which its slope changes sign."""
    low, high = min(rewards), max(rewards)
    for _ in range(60):
        middle = (low + high) / 2
        value = torch.tensor(middle, dtype=torch.float64, requires_grad=True)
        losses = soft_loss(value.expand(len(rewards)), torch.tensor(rewards).double(), eta)
        (losses * torch.tensor(probabilities).double()).sum().backward()
        assert value.grad is not None
        low, high = (middle, high) if value.grad < 0 else (low, middle)
    return low


@pytest.mark.parametrize(("beta", "left"), [(1, 0.504394), (5, 0.164553), (10, 0.002460)])
def test_what_the_soft_loss_finds_is_the_soft_value_of_the_published_tree(beta: float, left: float):
    # p(L) = p(R) = ½; left pays .1, right pays 1 with probability .05. P(L) = σ(β·(V(L) − V(R))) with η = 1/β.
    # (VAS, with V(R) = .05, has .512497, .562177, .622459: it goes left the more, the larger β.)
    right = best([0.0, 1.0], [0.95, 0.05], 1 / beta)
    assert 1 / (1 + math.exp(-beta * (0.1 - right))) == pytest.approx(left, abs=5e-7)
