"""Logistic regression with soft labels and an exact L1 penalty, for many weightings of the same rows at once.

For each of R weightings s the minimiser over w, in three dimensions (or any few), of

    F(w) = Σᵢ sᵢ · [ log(1 + exp(zᵢ)) − pᵢ·zᵢ ] + λ·‖w‖₁,      zᵢ = xᵢ·w,  no intercept.

A soft label p is the same as the row twice, labelled 1 with weight p and 0 with weight 1 − p; scikit-learn's C is 1/λ.
Proximal Newton: each step minimises the second-order model of the loss plus the penalty *exactly*, by trying every
pattern of signs, so zeros are exact and convergence is quadratic: 4–8 steps from a warm start.
"""

import itertools

import numpy as np
from scipy.special import expit

_RIDGE = 1e-9
"""Keeps the Hessian invertible where a feature is constant or repeats another; moves no estimate by 1e-9."""
_STEPS = 200
_HALVINGS = 60
_TOLERANCE = 1e-12
"""Relative decrease that the last step still promised; the error after that step is of its square's order."""


def fit_logistic(
    features: tuple[np.ndarray, ...],
    labels: np.ndarray,
    weights: np.ndarray,
    penalty: np.ndarray,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Coefficients (R, D) of R fits.

    features: D arrays, each (R, N), or (1, N) where all fits share the column. labels: (N,) in 0…1. weights: (R, N),
    not negative. penalty: (R,) λ, 0 for none. start: (D,) or (R, D), a warm start.

    Labels that the features separate have no finite minimiser without a penalty; the fit then stops where what is
    left to gain is below rounding, with predictions at 0 or 1 within 1e-12.

    >>> x = np.ones((1, 4))
    >>> fit_logistic((x,), np.array([1.0, 1.0, 1.0, 0.0]), np.ones((1, 4)), np.zeros(1)).round(6)  # log(3 / 1)
    array([[1.098612]])
    """
    fits, size = len(weights), len(features)
    w = np.zeros((fits, size)) if start is None else np.broadcast_to(start, (fits, size)).astype(np.float64)
    z = linear(features, w)  # (R, N)
    value = _objective(z, w, labels, weights, penalty)  # (R,)
    done = np.zeros(fits, dtype=bool)
    for _ in range(_STEPS):
        q = expit(z)  # (R, N)
        gradient = _against(features, weights * (q - labels)) + _RIDGE * w  # (R, D)
        hessian = _hessian(features, weights * q * (1 - q))  # (R, D, D)
        step = _best_signs(hessian, np.einsum("rij,rj->ri", hessian, w) - gradient, penalty) - w
        gain = (gradient * step).sum(1) + penalty * (np.abs(w + step).sum(1) - np.abs(w).sum(1))  # (R,), ≤ 0
        last = gain >= -_TOLERANCE * (1 + np.abs(value))
        step[done] = 0.0
        w, z, value = _searched(features, labels, weights, penalty, w, step, gain, value)
        done |= last
        if done.all():
            return w
    raise ArithmeticError(f"{np.sum(~done)} of {fits} logistic fits did not converge in {_STEPS} steps")


def linear(features: tuple[np.ndarray, ...], w: np.ndarray) -> np.ndarray:
    """z = x·w: (R, N) from D columns (R or 1, N) and coefficients (R, D)."""
    z = np.zeros((len(w), features[0].shape[1]))
    for d, column in enumerate(features):
        z += w[:, d, None] * column
    return z


def log_loss(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """−[p·log σ(z) + (1 − p)·log(1 − σ(z))] of each row, without overflow; shapes broadcast."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - labels * z


def _against(features: tuple[np.ndarray, ...], residual: np.ndarray) -> np.ndarray:
    return np.stack([np.einsum("rn,rn->r", residual, column) for column in features], axis=1)  # (R, D)


def _hessian(features: tuple[np.ndarray, ...], curvature: np.ndarray) -> np.ndarray:
    size = len(features)
    hessian = np.empty((len(curvature), size, size))
    for i in range(size):
        scaled = curvature * features[i]  # (R, N)
        for j in range(i, size):
            hessian[:, i, j] = hessian[:, j, i] = np.einsum("rn,rn->r", scaled, features[j])
        hessian[:, i, i] += _RIDGE
    return hessian


def _objective(z: np.ndarray, w: np.ndarray, labels: np.ndarray, weights: np.ndarray, penalty: np.ndarray):
    loss = np.einsum("rn,rn->r", weights, log_loss(z, labels))
    return loss + penalty * np.abs(w).sum(1) + _RIDGE / 2 * (w**2).sum(1)  # (R,)


def _best_signs(hessian: np.ndarray, linear: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """(R, D) argmin over v of ½·v'Hv − b'v + λ‖v‖₁, H positive definite.

    The minimiser solves H_AA·v_A = b_A − λ·sign(v_A) on its own support A and signs, so it is among the solutions of
    the 3^D patterns; each candidate is judged by the true objective, so a wrong pattern can never win.
    """
    fits, size = linear.shape
    best = np.zeros((fits, size))
    lowest = np.zeros(fits)  # v = 0
    patterns = itertools.product((-1.0, 0.0, 1.0), repeat=size) if penalty.any() else [(1.0,) * size]
    inverses: dict[tuple[bool, ...], np.ndarray] = {}
    for pattern in patterns:
        signs = np.array(pattern)  # (D,)
        support = signs != 0
        if not support.any():
            continue
        key = tuple(bool(kept) for kept in support)
        if key not in inverses:
            block = hessian * np.outer(support, support) + np.diag((~support).astype(float))
            inverses[key] = np.linalg.inv(block)  # (R, D, D)
        right = np.where(support, linear - penalty[:, None] * signs, 0.0)  # (R, D)
        v = np.einsum("rij,rj->ri", inverses[key], right)
        value = 0.5 * np.einsum("ri,rij,rj->r", v, hessian, v) - (linear * v).sum(1) + penalty * np.abs(v).sum(1)
        better = value < lowest
        lowest = np.where(better, value, lowest)
        best[better] = v[better]
    return best


def _searched(
    features: tuple[np.ndarray, ...],
    labels: np.ndarray,
    weights: np.ndarray,
    penalty: np.ndarray,
    w: np.ndarray,
    step: np.ndarray,
    gain: np.ndarray,
    value: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Halves a fit's step until it keeps a part of what the second-order model promised (Armijo); w, z and F there."""
    size = np.ones(len(w))  # (R,)
    slack = 1e-13 * (1 + np.abs(value))
    for _ in range(_HALVINGS):
        ahead = w + size[:, None] * step
        z = linear(features, ahead)
        reached = _objective(z, ahead, labels, weights, penalty)
        short = reached > value + 1e-4 * size * gain + slack
        if not short.any():
            return ahead, z, reached
        size[short] /= 2
    raise ArithmeticError("a logistic fit found no descent; its rows hold numbers too large to add")
