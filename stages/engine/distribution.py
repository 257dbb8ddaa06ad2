"""A next-token distribution: temperature first, then truncation (top-k, top-p, min-p), and draws by the inverse CDF.

π₀'s is computed once a step. Every guide tilts it, and every KL and log-probability refers to it. Dimension letters:
`stages/records.py`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.engine.sampling import Sampling

BLOCK = 256
"""Tokens in a block of the two-step inverse CDF."""
FIRST_LOOK = 64
"""The largest weights of a row, in which the nucleus of most rows ends."""


class NotFinite(ArithmeticError):
    """A model gave NaN or infinity: `what` ("logits", "values of <folder>"), first in row `row`."""

    def __init__(self, what: str, row: int) -> None:
        super().__init__(f"{what} are not finite")
        self.what = what
        self.row = row


def block_sums(weights: Tensor) -> Tensor:
    """(R, blocks) float64 sums of `weights` (R, V) over `BLOCK` consecutive tokens."""
    rows, vocabulary = weights.shape
    padded = torch.nn.functional.pad(weights, (0, -vocabulary % BLOCK)) if vocabulary % BLOCK else weights
    return padded.view(rows, -1, BLOCK).sum(dim=2, dtype=torch.float64)


def inverse_cdf(weights: Tensor, blocks: Tensor, u: Tensor) -> Tensor:
    """First index whose cumulative weight exceeds u·total, in vocabulary order; what has no weight is never drawn.

    `weights` (R, V) float32, not normalised; `blocks` their `block_sums`: the block is found first, then the token in
    it, all in float64. (One running sum over the vocabulary would cost more than the rest of the step's arithmetic.)
    `u` (R,) in [0, 1). Returns (R,) int64; where all weights are 0 some index that means nothing.

    Example: weights .2 0 .5 .3, u = .2 → index 2; u = .19 → index 0.
    """
    running = blocks.cumsum(dim=1)  # (R, blocks)
    total = running[:, -1]
    below = torch.nextafter(total, torch.zeros_like(total))  # u·total may round up to total itself
    target = torch.minimum(u * total, below)[:, None]  # (R, 1)
    block = torch.searchsorted(running, target, right=True).clamp_(max=blocks.shape[1] - 1)  # (R, 1)
    before = (running - blocks).gather(1, block)
    size = min(BLOCK, weights.shape[1])
    index = (block * BLOCK + torch.arange(size, device=u.device)).clamp_(max=weights.shape[1] - 1)  # (R, size)
    inside = weights.gather(1, index)  # (R, size)
    passed = (before + inside.double().cumsum(dim=1) <= target).sum(dim=1, keepdim=True)  # (R, 1)
    # Where rounding lets the block end below the target, its last token with weight is meant.
    last = ((inside > 0) * torch.arange(1, size + 1, device=u.device)).argmax(dim=1, keepdim=True)
    return index.gather(1, torch.minimum(passed, last))[:, 0]


@dataclass
class Distribution:
    """A policy's next-token distribution as it is sampled, for R rows: π₀'s, or that of a policy which tilts it."""

    logits: Tensor
    """(R, V) as the model gave them, in its dtype; temperature leaves their order as it is."""
    weights: Tensor
    """(R, V) float32 exp((logits − max) ÷ temperature), 0 where truncated (and below e⁻¹⁰³, where float32 ends)."""
    blocks: Tensor
    """(R, blocks) float64 `block_sums` of the weights."""
    total: Tensor
    """(R,) float64 normaliser of the weights."""

    @classmethod
    def of(cls, logits: Tensor, sampling: Sampling) -> "Distribution":
        """From raw logits (R, V). Raises NotFinite where a row has NaN or +inf (−inf is a token never drawn)."""
        weights = logits.to(torch.float32, copy=True)  # (R, V); in place from here: fresh memory costs most of this
        weights.sub_(weights.amax(dim=1, keepdim=True)).div_(sampling.temperature).exp_()
        weights = _truncated(weights, sampling)
        blocks = block_sums(weights)
        total = blocks.sum(dim=1)
        # NaN or infinity anywhere in a row reaches its maximum, hence its sum: one look at R numbers is enough.
        if not bool(torch.isfinite(total).all()):
            raise NotFinite("logits", int((~torch.isfinite(total)).nonzero()[0]))
        return cls(logits, weights, blocks, total)

    @classmethod
    def weighted(cls, logits: Tensor, weights: Tensor) -> "Distribution":
        """From weights (R, V) float32 that are finite; `logits` (R, V) give their order."""
        blocks = block_sums(weights)
        return cls(logits, weights, blocks, blocks.sum(dim=1))

    def logprob(self, ids: Tensor) -> Tensor:
        """(R, C) float64 log-probabilities of token ids (R, C); −inf where truncated."""
        return self.weights.gather(1, ids).double().log() - self.total.log()[:, None]

    def draw(self, u: Tensor) -> Tensor:
        """(R,) token ids by the inverse CDF in vocabulary order; `u` (R,) float64."""
        return inverse_cdf(self.weights, self.blocks, u)

    def draw_outside(self, ids: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Everything but the candidates (R, C): one token drawn from it, (R,), and its probability, (R,) float64.

        Summed over what lies outside, not 1 − Σ_C: where nothing does the probability is 0, not a rounding error.
        """
        rest = self.weights.scatter(1, ids, 0.0)  # (R, V)
        blocks = block_sums(rest)
        return inverse_cdf(rest, blocks, u), blocks.sum(dim=1) / self.total

    def likeliest(self, k: int) -> Tensor:
        """(R, k) ids of the k largest logits, in descending order."""
        return self.logits.topk(k, dim=1).indices


def _truncated(weights: Tensor, sampling: Sampling) -> Tensor:
    """`weights` (R, V), in place, with 0 for what top-k, top-p and min-p remove, in that order; each is a threshold per
    row.

    Thresholds keep ties, so that the kept set depends on the row alone and not on how a sort happens to break them.
    NaN is below no threshold: it stays, for `Distribution.of` to find.
    """
    vocabulary = weights.shape[1]
    if 0 < sampling.top_k < vocabulary:
        threshold = weights.topk(sampling.top_k, dim=1).values[:, -1:]  # (R, 1)
        weights.masked_fill_(weights < threshold, 0.0)
    if sampling.top_p < 1:
        threshold = _nucleus_threshold(weights, sampling.top_p)
        weights.masked_fill_(weights < threshold, 0.0)
    if sampling.min_p > 0:
        weights.masked_fill_(weights < sampling.min_p, 0.0)  # the most likely token has weight 1
    return weights


def _nucleus_threshold(weights: Tensor, top_p: float) -> Tensor:
    """(R, 1) weight of the last token in the smallest set that holds `top_p` of the mass.

    Most nuclei lie within the few largest weights. Of a row whose does not, only what could belong to it is sorted: all
    weights below (1 − p)·total ÷ V together are less than 1 − p of the mass. (Sorting the vocabulary of every row would
    cost more than the model's step.)

    Example: probabilities .5 .3 .2 and top_p = .6 → .3 (the set {.5, .3} is the first with at least .6).
    """
    total = weights.sum(dim=1, keepdim=True, dtype=torch.float64)
    mass = top_p * total  # (R, 1)
    ordered = weights.topk(min(FIRST_LOOK, weights.shape[1]), dim=1).values  # (R, first look)
    threshold, reached = _last_of_nucleus(ordered, mass)
    negligible = max(0.0, 1 - top_p - 1e-6) * total / weights.shape[1]  # sums are rounded
    for row in (~reached[:, 0]).nonzero()[:, 0].tolist():
        one = weights[row].cpu().numpy()
        kept = np.sort(one[one >= negligible[row].item()])  # torch's sort takes far longer
        ordered = torch.from_numpy(kept[::-1].copy())
        threshold[row] = _last_of_nucleus(ordered[None].to(mass.device), mass[row : row + 1])[0][0]
    return threshold


def _last_of_nucleus(ordered: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """The first of the descending weights (R, N) with which the running sum reaches `mass` (R, 1), the last where none
    does, and whether one does; (R, 1) each."""
    before = (ordered.cumsum(dim=1, dtype=torch.float64) < mass).sum(dim=1, keepdim=True)
    last = ordered.shape[1] - 1
    return ordered.gather(1, before.clamp(max=last)), before <= last


def token_logprob(logits: Tensor, token: Tensor) -> Tensor:
    """(R,) float64 log-probabilities at temperature 1 of tokens (R,) under logits (R, V)."""
    logits = logits.float()
    return (logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(dim=1)).double()
