"""The loss of DPO and the margin that it widens, against arithmetic done by hand."""

import math

import pytest
import torch

from stages.learn.policies.dpo_loss import ResponseLogprobs, dpo_loss, implicit_rewards, margins


def pair(tuned: float, reference: float, length: int) -> ResponseLogprobs:
    return ResponseLogprobs(torch.tensor([tuned]), torch.tensor([reference]), torch.tensor([length]))


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


def test_the_margin_is_the_difference_of_both_implicit_rewards_a_token_where_the_loss_counts_so():
    # log-ratios −6 + 10 = 4 of 8 tokens and −2 + 5 = 3 of 2 tokens, β = .5
    chosen, rejected = pair(-6, -10, 8), pair(-2, -5, 2)
    assert margins(chosen, rejected, 0.5).item() == pytest.approx(0.5 * (4 - 3))
    assert margins(chosen, rejected, 0.5, length_normalised=True).item() == pytest.approx(0.5 * (4 / 8 - 3 / 2))


@pytest.mark.parametrize("length_normalised", [False, True])
def test_the_loss_is_below_log_2_exactly_where_the_margin_is_positive(length_normalised: bool):
    sides = pair(-6, -10, 8), pair(-2, -5, 2)
    below = dpo_loss(*sides, 1.0, length_normalised=length_normalised).item() < math.log(2)
    assert below is (margins(*sides, 1.0, length_normalised).item() > 0) is (not length_normalised)
