"""The length-controlled fit of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475, §3), for many weightings at once.

    p(candidate preferred) = σ( w₁·tanh(Δ / sd(Δ)) + w₂·d + w₃ ),      Δ = characters of the reference − the candidate
    LC = 100 · meanᵢ σ( w₂·dᵢ + w₃ )                                   as if both were equally long

d is the instruction's difficulty, sd is over the candidate's rows (ddof = 1), labels are soft (p = preference − 1).
AlpacaEval adds the rows of two "gamed" baselines (the reference model told to be verbose, or concise), each with
weight 0.1 and the features of w₁ and w₂ only, and an L1 penalty ‖w‖₁ / C with C chosen by 5-fold cross-validation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from stages.errors import BadInput
from stages.judge.statistics.logistic import fit_logistic, linear, log_loss

GAMED_WEIGHT = 0.1
"""AlpacaEval's λ = 0.2, shared by its two gamed baselines."""
GRID = np.logspace(-4, 4, 10)
FOLDS = 5
PORTION = 125
"""So many fits are made at a time, so that their data stay in the processor's cache."""


class Weights(NamedTuple):
    """The fitted coefficients, in log-odds."""

    length: float
    """w₁, of tanh(Δ / sd): negative where the longer output wins."""
    difficulty: float
    """w₂"""
    candidate: float
    """w₃"""


class LengthControl:
    """The rows of one candidate, ready to be fitted under any weighting of its prompts.

    delta, difficulty and labels are (n,), over prompts: Δ in characters, d, and p in 0…1. `gamed` holds mappings with
    `preference` in 0…1, `std_delta_len` (Δ / sd, before tanh) and `instruction_difficulty`; numbers may be text, as a
    csv reader gives them.
    """

    def __init__(
        self,
        labels: np.ndarray,
        delta: np.ndarray,
        difficulty: np.ndarray,
        gamed: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.size = len(labels)
        self.delta = delta
        self.difficulty = difficulty
        rows = _gamed_rows(gamed or ())  # (G, 3)
        rows = rows[np.lexsort(rows.T)]
        self._labels = np.concatenate([labels, rows[:, 0]])  # (n + G,)
        self._gamed_length = np.tanh(rows[:, 1])  # (G,)
        self._difficulty = np.concatenate([difficulty, rows[:, 2]])[None]  # (1, n + G)
        self._candidate = np.concatenate([np.ones(self.size), np.zeros(len(rows))])[None]  # (1, n + G)
        self._gamed_weights = np.full(len(rows), GAMED_WEIGHT)

    def fit(self, counts: np.ndarray, C: float | None, start: np.ndarray | None = None) -> np.ndarray:  # noqa: N803
        """(R, 3) weights for (R, n) counts of the prompts; sd(Δ) is that of the counted prompts. C None: no penalty."""
        penalty = np.full(min(PORTION, len(counts)), 0.0 if C is None else 1 / C)
        fitted = []
        for first in range(0, len(counts), PORTION):
            part = counts[first : first + PORTION]  # (P, n)
            gamed = (len(part), len(self._gamed_length))
            length = np.concatenate(
                [length_feature(self.delta, part), np.broadcast_to(self._gamed_length, gamed)], axis=1
            )  # (P, n + G)
            weights = np.concatenate([part, np.broadcast_to(self._gamed_weights, gamed)], axis=1)
            features = (length, self._difficulty, self._candidate)
            fitted.append(fit_logistic(features, self._labels, weights, penalty[: len(part)], start))
        return np.concatenate(fitted)

    def win_rates(self, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(R,) LC in points of (R, 3) weights, averaged over (R, n) counted prompts."""
        equal = expit(weights[:, 1, None] * self.difficulty + weights[:, 2, None])  # (R, n)
        return 100 * (counts * equal).sum(1) / counts.sum(1)

    def choose_penalty(self) -> float:
        """The C of GRID with the least held-out loss in 5-fold cross-validation; the smaller one on a tie.

        AlpacaEval's published fits show how it chooses: a row's two halves stay together, the score is the mean over a
        fold's rows of weight × log-loss, and folds count equally. (Without the row weights, which AlpacaEval's scorer
        passes along, other values win: 0.36 or 10,000.) Here all rows of one instruction lie in the same fold:
        instructions are told apart by their difficulty and dealt in its order, so the order of the rows is
        irrelevant; with fewer than 5 distinct difficulties the rows themselves are dealt.
        """
        ones = np.ones((1, self.size))
        length = np.concatenate([length_feature(self.delta, ones)[0], self._gamed_length])[None]  # (1, n + G)
        features = (length, self._difficulty, self._candidate)
        row_weights = np.concatenate([ones[0], self._gamed_weights])
        held_out = self._folds(length[0])[None] == np.arange(FOLDS)[:, None]  # (F, n + G)
        held_out = held_out[held_out.any(1)]
        training = np.where(held_out, 0.0, row_weights)  # (F, n + G)
        losses = []
        start = None
        for C in GRID[::-1]:  # noqa: N806, warm starts from the weakest penalty on
            start = fit_logistic(features, self._labels, training, np.full(len(training), 1 / C), start)
            z = linear(features, start)  # (F, n + G)
            loss = np.where(held_out, row_weights * log_loss(z, self._labels), 0.0)  # (F, n + G)
            losses.append(np.mean(loss.sum(1) / held_out.sum(1)))
        return float(GRID[np.argmin(losses[::-1])])

    def _folds(self, length: np.ndarray) -> np.ndarray:
        """(n + G,) the fold of each row."""
        distinct, instruction = np.unique(self._difficulty[0], return_inverse=True)
        if len(distinct) >= FOLDS:
            return instruction % FOLDS
        order = np.lexsort((self._labels, length, self._difficulty[0], self._candidate[0]))
        folds = np.empty(len(order), dtype=int)
        folds[order] = np.arange(len(order)) % FOLDS
        return folds


def length_feature(delta: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(R, n) tanh(Δ / sd) where sd (ddof = 1) is that of the prompts as counted; 0 where Δ does not vary.

    >>> length_feature(np.array([-100.0, 100.0]), np.ones((1, 2))).round(4)  # sd = 141.4, tanh(±0.7071)
    array([[-0.6089,  0.6089]])
    """
    totals = counts.sum(1)  # (R,)
    mean = (counts @ delta) / totals
    variance = ((counts @ delta**2) - totals * mean**2) / np.maximum(totals - 1, 1)
    least = 1e-12 * np.max(np.abs(delta), initial=1.0) ** 2
    varies = variance > least
    deviation = np.sqrt(np.where(varies, variance, 1.0))
    return np.where(varies[:, None], np.tanh(delta / deviation[:, None]), 0.0)


def _gamed_rows(gamed: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(G, 3) preference, std_delta_len, instruction_difficulty."""
    rows = np.empty((len(gamed), 3))
    for number, row in enumerate(gamed):
        for column, name in enumerate(("preference", "std_delta_len", "instruction_difficulty")):
            try:
                rows[number, column] = float(row[name])
            except KeyError:
                raise BadInput("gamed", f"row {number} has no {name!r}") from None
            except (TypeError, ValueError):
                raise BadInput("gamed", f"row {number}: {name} = {row[name]!r} is not a number") from None
    if not np.isfinite(rows).all():
        raise BadInput("gamed", f"row {int(np.argmin(np.isfinite(rows).all(1)))} holds a value that is not finite")
    if len(rows) and not ((rows[:, 0] >= 0) & (rows[:, 0] <= 1)).all():
        worst = int(np.argmax((rows[:, 0] < 0) | (rows[:, 0] > 1)))
        raise BadInput("gamed", f"row {worst}: preference {rows[worst, 0]:g} is not a probability (0…1)")
    return rows
