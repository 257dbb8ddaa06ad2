"""The arithmetic of a tilted policy on candidates: π(a|s) ∝ π₀(a|s)·exp(t_a), with exact KL. Pure functions, float64.

VAS (arXiv 2405.06639): Q(s, a) = V(s⊕a), tilt t_a = β·(V(s⊕a) − c) for the k candidates C, 0 for every other token.
"""

from typing import NamedTuple

import torch
from torch import Tensor

OUTSIDE = ("mean", "prefix", "drop")
"""What tokens outside the candidates get. `mean`, `prefix`: their base weight, where c is the mean of the candidates'
values or the prefix's own value; `drop`: probability 0."""


class Tilted(NamedTuple):
    """A tilted policy over C candidates and everything else."""

    logprob: Tensor
    """(R, C) log π of the candidates; −inf where the base gives them nothing."""
    log_outside: Tensor
    """(R,) log of the probability that all other tokens share; −inf for `drop`."""
    log_normaliser: Tensor
    """(R,) log Z: a token outside has log π = log π₀ − log Z."""
    kl: Tensor
    """(R,) KL(π ‖ π₀) of this step in nats, exact."""


def value_tilt(values: Tensor, supported: Tensor, beta: Tensor, outside: str, prefix: Tensor | None = None) -> Tensor:
    """t_a = β·(V(s⊕a) − c), (R, C).

    `values` (R, C) in the value's unit (z-scored reward); `beta` (R,), each row's own; `supported` (R, C) bool:
    candidates that the base can draw, over which the mean is taken; `prefix` (R,) = V(s), read for `outside="prefix"`
    only. For `drop` c cancels in the normaliser and only keeps exponents small.

    Example: β = 2, V = (1, 0), mean: c = ½, t = (1, −1); prefix with V(s) = 0: t = (2, 0).
    """
    if outside == "prefix":
        if prefix is None:
            raise ValueError("outside='prefix' needs the value of the prefix")
        centre = prefix[:, None]
    else:
        count = supported.sum(dim=1, keepdim=True).clamp(min=1)
        centre = values.where(supported, 0.0).sum(dim=1, keepdim=True) / count  # (R, 1)
    return beta[:, None] * (values - centre)


def tilted(logprob: Tensor, tilt: Tensor, log_outside: Tensor) -> Tilted:
    """Normalises π₀·exp(t) over candidates and the rest, in log space.

    `logprob` (R, C) log π₀ of the candidates, −inf where they have no support; `tilt` (R, C), finite; `log_outside`
    (R,) log(1 − Σ_C π₀), or −inf where the rest is dropped.

        Z   = Σ_C π₀·e^t + (1 − Σ_C π₀)          (the last term absent for `drop`)
        KL  = Σ_C π·t − log Z                     (tokens outside: log(π/π₀) = −log Z, as for t = 0)

    Example, π₀ = (.5, .3 | rest .2), t = (log 2, −log 2): Z = 1 + .15 + .2 = 1.35; π = (.7407, .1111 | .1481);
    KL = (.7407 − .1111)·.6931 − .3001 = .1363. With the rest dropped Z = 1.15, π = (.8696, .1304), KL = .3726.
    """
    joint = logprob + tilt  # (R, C)
    log_normaliser = torch.logaddexp(torch.logsumexp(joint, dim=1), log_outside)  # (R,)
    posterior = joint - log_normaliser[:, None]  # (R, C)
    kl = (posterior.exp() * tilt).sum(dim=1) - log_normaliser
    return Tilted(posterior, log_outside - log_normaliser, log_normaliser, kl)


def pick(policy: Tilted, u: Tensor) -> Tensor:
    """(R,) index of the candidate drawn by the inverse CDF in candidate order, or C for "some token outside".

    `u` (R,) in [0, 1). What has no probability is never picked: where the running sum ends below u by rounding, the
    last candidate with support is, unless the outside has support.

    Example: π = (.7407, .1111 | .1481): u = .5 → 0, u = .8 → 1, u = .9 → 2 (outside).
    """
    probability = policy.logprob.exp()  # (R, C)
    width = probability.shape[1]
    index = (probability.cumsum(dim=1) <= u[:, None]).sum(dim=1)  # (R,)
    order = torch.arange(1, width + 1, device=u.device)
    last = ((probability > 0) * order).argmax(dim=1)
    return torch.where((index == width) & torch.isneginf(policy.log_outside), last, index)


def likeliest(policy: Tilted, outside_logprob: Tensor) -> Tensor:
    """(R,) index of the most likely candidate, or C where the best token outside, (R,) log π₀, is above them all."""
    outside = (outside_logprob - policy.log_normaliser).masked_fill(torch.isneginf(policy.log_outside), -torch.inf)
    return torch.cat([policy.logprob, outside[:, None]], dim=1).argmax(dim=1)


def place_in_base(base_draw: Tensor, candidates: Tensor, probability: Tensor, outside: Tensor, v: Tensor) -> Tensor:
    """Moves the base's own draw to a uniform number for `pick`, so that without a tilt `pick` returns that draw.

    `base_draw` (R,) token drawn from π₀; `candidates` (R, C) ids with π₀ `probability` (R, C); `outside` (R,) the
    rest's π₀; `v` (R,) uniform, independent of the draw. The result is uniform on [0, 1), and given that the draw lies
    outside it does not depend on *which* token was drawn: hence that token stays a fair draw from the rest, whatever
    the tilt makes of the boundary between candidates and rest.

    Example: C = (a, b) with π₀ = (.5, .3 | .2), v = .5: draw b → .5 + .5·.3 = .65; any draw outside → .8 + .1 = .9.
    """
    drawn = candidates == base_draw[:, None]  # (R, C)
    below = probability.cumsum(dim=1) - probability  # (R, C)
    inside = (drawn * (below + v[:, None] * probability)).sum(dim=1)  # (R,)
    rest = probability.sum(dim=1) + v * outside
    return torch.where(drawn.any(dim=1), inside, rest)
