"""The arithmetic of the targets besides TD(λ): FUDGE, Controlled Decoding's Bellman target, a soft value.

Sources: FUDGE, arXiv 2104.05218; Controlled Decoding (CD), arXiv 2310.17022, CD-Q (its CD-FUDGE regresses on the
reward itself, which is TD(λ) with λ = 1); the soft value of Q♯, arXiv 2502.20548, learnt by Gumbel regression, arXiv
2301.02328. The soft value is that of the KL-optimal policy, not of π₀: it is **not** VAS.
"""

import math

import torch
from torch.nn import functional as F


def fudge_loss(logits: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of "this response will have the attribute", asked at every prefix; (…) each.

    `attributes` are 0 or 1. Decoding adds log σ(logit), the log-probability of the attribute.

    >>> [round(x, 4) for x in fudge_loss(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])).tolist()]
    [0.6931, 2.1269]
    """
    return F.binary_cross_entropy_with_logits(logits, attributes, reduction="none")


def bellman_targets(
    values: torch.Tensor, probabilities: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """CD-Q's targets for a head over the vocabulary, where V(sₜ) stands in column aₜ₋₁ of the state before it:

        target(sₜ) = Σ_z π₀(z|sₜ)·V(sₜ ⊕ z) for t < T,   target(s_T) = r

    The expectation is over the vocabulary, not over what happened to be drawn (that would be TD(0)).

    Args:
        values: (B, T+1, C) values of C successors of the states s₀ … s_T.
        probabilities: (B, T+1, C) π₀ of these successors, as sampled; each row sums to 1.
        rewards: (B,).
        lengths: (B,) T of each response.

    Returns:
        (B, T+1) targets of s₀ … s_T without gradient, 0 behind a response's end.

    One token, successors worth 1 and 3 with π₀ = ¾ and ¼: target(s₀) = 1.5; the state after it gets r = 2.

    >>> values, p = torch.tensor([[[1.0, 3.0], [9.0, 9.0]]]), torch.tensor([[[0.75, 0.25], [0.5, 0.5]]])
    >>> bellman_targets(values, p, torch.tensor([2.0]), torch.tensor([1])).tolist()
    [[1.5, 2.0]]
    """
    place = torch.arange(values.shape[1], device=values.device)[None]  # (1, T+1)
    expected = (values.detach() * probabilities).sum(dim=2)  # (B, T+1)
    return torch.where(place < lengths[:, None], expected, rewards[:, None] * (place == lengths[:, None]))


def soft_loss(values: torch.Tensor, rewards: torch.Tensor, eta: float) -> torch.Tensor:
    """η²·(exp(d) − d − 1) with d = (r − V)/η, (…) each: its expectation is least at V = η·log E[exp(r/η)].

    For small d it is ½(r − V)², so learning rates carry over. Beyond d = 5 it goes on as a straight line: a
    gradient of e⁵ is the largest that one response may have. Where rewards reach so far, the value is a lower bound.

    d = 1, η = 1: e − 2 = .7183; d = −1: 1/e = .3679 (falling short costs more).

    >>> [round(x, 4) for x in soft_loss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), 1.0).tolist()]
    [0.7183, 0.3679]
    """
    d = (rewards - values) / eta
    bounded = d.clamp(max=5.0)
    beyond = (d - bounded) * math.exp(5.0)
    return eta * eta * (torch.exp(bounded) + beyond - d - 1)
