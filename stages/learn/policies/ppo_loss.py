"""The losses of Proximal Policy Optimisation for language models, and its two kinds of KL penalty.

Sources: PPO, arXiv 1707.06347, eqs. 6–7; the penalty inside the reward and its controller, Ziegler et al., arXiv
1909.08593, §2.2; the clipped value loss is that of OpenAI's baselines. All tensors hold one entry a token; what is
padding is the caller's to leave out.
"""

import math
from dataclasses import dataclass

import torch


def penalised_rewards(
    scores: torch.Tensor, logprobs: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor, beta: float
) -> torch.Tensor:
    """Reward a token, (B, T): rₜ = −β·(log π(aₜ|sₜ) − log π₀(aₜ|sₜ)), the last token has the response's score added.

    (The reward of 1909.08593 §2.2, spread over the tokens.) `scores` (B,), `logprobs` and `reference` (B, T), `lengths`
    (B,); 0 behind a response's end. The sum over a response is score − β·(log π(y|x) − log π₀(y|x)).

    >>> one, zero = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -2.0]])
    >>> penalised_rewards(torch.tensor([3.0]), one, zero, torch.tensor([2]), beta=0.1).tolist()
    [[-0.05000000074505806, 3.0]]
    """
    place = torch.arange(logprobs.shape[1], device=logprobs.device)[None]  # (1, T)
    penalty = (-beta * (logprobs - reference)).where(place < lengths[:, None], 0)
    return penalty + scores[:, None] * (place == lengths[:, None] - 1)


def policy_loss(logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """−min(ρ·A, clip(ρ, 1 − ε, 1 + ε)·A) with ρ = π/π_old, one a token, (…) each (eq. 7, as a loss).

    ρ = 1.5, ε = .2: A = 1 gives −1.2 (no gain beyond the clip, no gradient), A = −1 gives 1.5 (the worse of both).

    >>> rho = torch.log(torch.tensor([1.5, 1.5]))
    >>> [round(x, 4) for x in policy_loss(rho, torch.zeros(2), torch.tensor([1.0, -1.0]), 0.2).tolist()]
    [-1.2, 1.5]
    """
    ratio = torch.exp(logprobs - old)
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped(logprobs: torch.Tensor, old: torch.Tensor, clip: float) -> torch.Tensor:
    """Whether ρ = π/π_old has left [1 − ε, 1 + ε], one a token, (…) bool. Its mean is the clip fraction: 0 where the
    policy has hardly moved, and with most tokens clipped an iteration's responses have little left to teach.

    ρ = 1.1, 1.5 and .5 with ε = .2: two of three.

    >>> clipped(torch.log(torch.tensor([1.1, 1.5, 0.5])), torch.zeros(3), 0.2).tolist()
    [False, True, True]
    """
    return (torch.exp(logprobs - old) - 1).abs() > clip


def value_loss(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """½·max((V − R)², (V_old + clip(V − V_old, ±ε) − R)²), one a token, (…) each.

    V = 2, V_old = 1, R = 2, ε = .2: the clipped value 1.2 is .8 off, so ½·.64 although V itself is right.

    >>> one, two = torch.ones(1), torch.full((1,), 2.0)
    >>> round(value_loss(two, one, two, 0.2).item(), 4)
    0.32
    """
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


def kl_estimate(logprobs: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """ρ − 1 − log ρ with ρ = π/π_old, (…): never negative, and KL(π_old ‖ π) in expectation over draws of π_old.

    >>> round(kl_estimate(torch.log(torch.tensor(1.5)), torch.tensor(0.0)).item(), 4)
    0.0945
    """
    log_ratio = logprobs - old
    return torch.expm1(log_ratio) - log_ratio


@dataclass
class KLCoefficient:
    """β of the penalty: fixed where `target` is 0, else steered towards `target` nats a response (1909.08593, §2.2)."""

    beta: float
    target: float = 0.0
    gain: float = 0.1
    """K_β of the proportional controller."""

    def update(self, kl: float) -> float:
        """β ← β·(1 + K_β·e), e = clip(kl/target − 1, ±.2): at most 2 % a step with the usual gain of .1.

        >>> KLCoefficient(1.0, target=6.0).update(12.0)
        1.02
        >>> KLCoefficient(1.0).update(12.0)
        1.0
        """
        if self.target > 0 and math.isfinite(kl):
            error = min(0.2, max(-0.2, kl / self.target - 1))
            self.beta *= 1 + self.gain * error
        return self.beta
