"""TD(λ) targets of a value that is paid once, at the end (γ = 1).

Source: Value Augmented Sampling, arXiv 2405.06639; the λ-return of Sutton & Barto, eq. 12.2. Unlike the authors' code
the state after EOS is trained too: decoding asks for its value whenever EOS is a candidate.
"""

import torch


def td_lambda(values: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor, lam: float) -> torch.Tensor:
    """λ-returns of every state of a padded batch of responses.

    A response of T tokens has states s₀ (the prompt) … s_T (after its last token, EOS or not). Appending a token pays
    nothing; s_T pays r, and nothing follows it (V = 0):

        δₜ = V(sₜ₊₁) − V(sₜ) for t < T,   δ_T = r − V(s_T),   target(sₜ) = V(sₜ) + Σᵢ λⁱ δₜ₊ᵢ

    which is the recursion  target(s_T) = r,  target(sₜ) = (1 − λ)·V(sₜ₊₁) + λ·target(sₜ₊₁).

    Args:
        values: (B, T+1, M) values of the states s₀ … s_T; whatever stands behind a response's end is not read.
        rewards: (B, M) terminal rewards.
        lengths: (B,) T, the number of tokens of each response.
        lam: λ ∈ [0, 1]; 1 is Monte Carlo (every state gets r), 0 bootstraps one step.

    Returns:
        (B, T+1, M) targets without gradient; 0 behind a response's end.

    With ten tokens, zero values, r = 1 and λ = .95 the state before the last has .95·1 + .05·0 = .95, the one before
    it .95² = .9025, and s₀ has .95¹⁰:

    >>> one = torch.ones(1, 1)
    >>> [round(x, 3) for x in td_lambda(torch.zeros(1, 11, 1), one, torch.tensor([10]), 0.95)[0, :, 0].tolist()]
    [0.599, 0.63, 0.663, 0.698, 0.735, 0.774, 0.815, 0.857, 0.902, 0.95, 1.0]
    """
    values = values.detach()
    targets = torch.zeros_like(values)
    following_target = torch.zeros_like(rewards)  # (B, M)
    following_value = torch.zeros_like(rewards)  # (B, M)
    for t in range(values.shape[1] - 1, -1, -1):
        last = (lengths == t)[:, None]  # (B, 1)
        inside = (t <= lengths)[:, None]
        target = torch.where(last, rewards, (1 - lam) * following_value + lam * following_target)
        following_target = torch.where(inside, target, following_target)
        following_value = torch.where(inside, values[:, t], following_value)
        targets[:, t] = following_target * inside
    return targets
