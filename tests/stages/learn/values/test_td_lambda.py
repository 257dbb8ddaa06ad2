"""TD(λ) targets against arithmetic done by hand."""

import pytest
import torch

from stages.learn.values.td_lambda import td_lambda


def targets(values: list[float], reward: float, lam: float) -> list[float]:
    """Targets of one response whose states have these values."""
    found = td_lambda(
        torch.tensor(values)[None, :, None], torch.tensor([[reward]]), torch.tensor([len(values) - 1]), lam
    )
    return found[0, :, 0].tolist()


def test_worked_example_of_ten_tokens():
    # Zero values, r = 1, λ = .95: target(sₜ) = .95^(10 − t), and the state after EOS gets r itself.
    expected = [0.599, 0.630, 0.663, 0.698, 0.735, 0.774, 0.815, 0.857, 0.902, 0.95, 1.0]
    assert targets([0.0] * 11, 1.0, 0.95) == pytest.approx(expected, abs=6e-4)


def test_monte_carlo_gives_the_reward_everywhere():
    assert targets([0.3, -2.0, 5.0, 0.1], 0.7, 1.0) == pytest.approx([0.7] * 4)


def test_one_step_bootstrap_gives_the_next_value():
    # λ = 0: each state is told its successor's value, the last one r.
    assert targets([0.3, -2.0, 5.0, 0.1], 0.7, 0.0) == pytest.approx([-2.0, 5.0, 0.1, 0.7])


def test_a_right_value_is_a_fixed_point_in_expectation_only():
    # V = .5 .5 1, r = 1, λ = .95: s₂ → 1; s₁ → .05·1 + .95·1 = 1; s₀ → .05·.5 + .95·1 = .975.
    assert targets([0.5, 0.5, 1.0], 1.0, 0.95) == pytest.approx([0.975, 1.0, 1.0])


def test_equals_the_sum_of_temporal_differences():
    # target(sₜ) = V(sₜ) + Σ λⁱ δₜ₊ᵢ with δ = (1 − 2, 4 − 1, 3 − 4) = (−1, 3, −1), λ = ½:
    # s₀: 2 − 1 + ½·3 − ¼·1 = 2.25; s₁: 1 + 3 − ½ = 3.5; s₂: 4 − 1 = 3.
    assert targets([2.0, 1.0, 4.0], 3.0, 0.5) == pytest.approx([2.25, 3.5, 3.0])


def test_padding_is_not_read_and_gets_no_target():
    nan = float("nan")
    values = torch.tensor([[2.0, 1.0, 4.0], [0.5, nan, nan], [7.0, 3.0, nan]])[..., None]
    found = td_lambda(values, torch.tensor([[3.0], [9.0], [1.0]]), torch.tensor([2, 0, 1]), 0.5)[..., 0]
    assert found[0].tolist() == pytest.approx([2.25, 3.5, 3.0])
    assert found[1].tolist() == [9.0, 0.0, 0.0]  # T = 0: the prompt itself is the last state
    assert found[2].tolist() == [2.0, 1.0, 0.0]  # ½·V(s₁) + ½·r = 1.5 + .5


def test_rewards_have_targets_of_their_own():
    values = torch.zeros(1, 2, 2)
    found = td_lambda(values, torch.tensor([[1.0, -2.0]]), torch.tensor([1]), 0.5)
    assert found[0].tolist() == [[0.5, -1.0], [1.0, -2.0]]


def test_targets_carry_no_gradient():
    values = torch.zeros(1, 3, 1, requires_grad=True)
    assert not td_lambda(values, torch.ones(1, 1), torch.tensor([2]), 0.9).requires_grad
