"""Advantages and their whitening, against arithmetic done by hand."""

import math

import pytest
import torch

from stages.learn.policies.advantages import gae, whiten

NAN = float("nan")


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
