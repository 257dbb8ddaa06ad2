"""Generalised advantage estimates of sampled responses, and their whitening.

Source: Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv 1506.02438,
eqs. 11–16.
"""

import torch


def gae(
    values: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor, lam: float, gamma: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of every token of a padded batch of responses.

    Token aₜ is drawn in state sₜ and pays rₜ; nothing follows the last one, whether it is EOS or the limit was reached:

        δₜ = rₜ + γ·V(sₜ₊₁) − V(sₜ),  V(s_T) = 0;   Aₜ = Σᵢ (γλ)ⁱ δₜ₊ᵢ  (eq. 16);   return = Aₜ + V(sₜ)

    Args:
        values: (B, T) V(s₀) … V(s_T₋₁), of the states in which tokens are drawn; not read behind a response's end.
        rewards: (B, T) reward a token; not read behind a response's end.
        lengths: (B,) number of tokens of each response.
        lam: λ ∈ [0, 1]; 1 is Monte Carlo, 0 one step.
        gamma: discount.

    Returns:
        Advantages and returns, (B, T) each, without gradient; 0 behind a response's end.

    Two tokens, V = ½ and 1, rewards 0 and 2, λ = ½: δ₁ = 2 − 1 = 1, δ₀ = 1 − ½ = ½, A₀ = ½ + ½·1 = 1.

    >>> a, r = gae(torch.tensor([[0.5, 1.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([2]), lam=0.5)
    >>> a.tolist(), r.tolist()
    ([[1.0, 1.0]], [[1.5, 2.0]])
    """
    values, rewards = values.detach(), rewards.detach()
    steps = values.shape[1]
    inside = torch.arange(steps, device=values.device)[None] < lengths[:, None]  # (B, T)
    values, rewards = values.where(inside, 0), rewards.where(inside, 0)  # padding may hold anything, NaN too
    advantages = torch.zeros_like(values)
    following_value = torch.zeros_like(values[:, 0])  # (B,)
    following = torch.zeros_like(values[:, 0])  # (B,)
    for t in range(steps - 1, -1, -1):
        delta = rewards[:, t] + gamma * following_value - values[:, t]
        following = (delta + gamma * lam * following) * inside[:, t]
        advantages[:, t] = following
        following_value = values[:, t]
    return advantages, (advantages + values) * inside


def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`values` with mean 0 and deviation 1 where `mask` is true, 0 elsewhere; (…) each.

    >>> whiten(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([True, True, False])).tolist()
    [-1.0, 1.0, 0.0]
    """
    chosen = values[mask]
    centred = (values - chosen.mean()) / chosen.std(correction=0).clamp(min=1e-8)
    return centred.where(mask, 0)
