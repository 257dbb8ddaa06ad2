"""The loss of Direct Preference Optimization.

Source: Rafailov et al., arXiv 2305.18290, eq. 7; label smoothing as in "conservative DPO" (Mitchell 2023: the
labels are wrong with probability ε); length normalisation after SimPO, arXiv 2405.14734, but with a reference.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F


class ResponseLogprobs(NamedTuple):
    """Log-probabilities in nats of one response of each of P pairs, summed over its tokens, EOS included."""

    tuned: torch.Tensor
    """(P,) log π(y|x) of the policy that is trained."""
    reference: torch.Tensor
    """(P,) log π₀(y|x)."""
    lengths: torch.Tensor
    """(P,) tokens of y."""


def implicit_rewards(response: ResponseLogprobs, beta: float, length_normalised: bool = False) -> torch.Tensor:
    """β·(log π(y|x) − log π₀(y|x)), (P,); divided by the response's tokens where `length_normalised`."""
    ratio = response.tuned - response.reference
    return beta * (ratio / response.lengths if length_normalised else ratio)


def margins(
    chosen: ResponseLogprobs, rejected: ResponseLogprobs, beta: float, length_normalised: bool = False
) -> torch.Tensor:
    """(P,) by how much the chosen response's implicit reward is above the rejected one's. The loss makes it large; a
    pair counts as told apart where it is positive.

    Log-ratios 4 of 8 tokens and 3 of 2 tokens, β = 1: 4 − 3 = 1; a token, 4/8 − 3/2 = −1.

    >>> long = ResponseLogprobs(torch.tensor([-6.0]), torch.tensor([-10.0]), torch.tensor([8]))
    >>> short = ResponseLogprobs(torch.tensor([-2.0]), torch.tensor([-5.0]), torch.tensor([2]))
    >>> margins(long, short, 1.0).item(), margins(long, short, 1.0, length_normalised=True).item()
    (1.0, -1.0)
    """
    return implicit_rewards(chosen, beta, length_normalised) - implicit_rewards(rejected, beta, length_normalised)


def dpo_loss(
    chosen: ResponseLogprobs,
    rejected: ResponseLogprobs,
    beta: float,
    label_smoothing: float = 0.0,
    length_normalised: bool = False,
) -> torch.Tensor:
    """(P,) −(1 − ε)·log σ(h) − ε·log σ(−h), where h is the margin of both implicit rewards (eq. 7).

    Log-ratios 1 and −1 with β = .5 give h = 1 and −log σ(1) = .3133; with ε = .1: .9·.3133 + .1·1.3133 = .4133.

    >>> better = ResponseLogprobs(torch.tensor([-4.0]), torch.tensor([-5.0]), torch.tensor([3]))
    >>> worse = ResponseLogprobs(torch.tensor([-6.0]), torch.tensor([-5.0]), torch.tensor([3]))
    >>> round(dpo_loss(better, worse, 0.5).item(), 4), round(dpo_loss(better, worse, 0.5, 0.1).item(), 4)
    (0.3133, 0.4133)
    """
    margin = margins(chosen, rejected, beta, length_normalised)
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
