"""How well values foretell rewards, by position in the response."""

import numpy as np
import torch
from scipy.stats import spearmanr

from stages.learn.values.head import ValueModel
from stages.learn.values.states import Features

PLACES = (("start", 0.0), ("middle", 0.5), ("end", 1.0))


@torch.inference_mode()
def values_of(head: ValueModel, features: list[Features]) -> list[np.ndarray]:
    """(S, M) float64 values of each rollout: of s₀ … s_T, or of s₁ … s_T from a head over the vocabulary."""
    return [head.along(f.states, f.tokens).double().numpy() for f in features]


def heldout_quality(values: list[np.ndarray], scores: torch.Tensor, names: list[str]) -> dict[str, float]:
    """How well values foretell the final reward, at the start (s₀), middle (s at ⌊T/2⌋) and end (s_T) of responses.

    `explained_variance` is 1 − Var(r − V) / Var(r), over all states and by position; `rank_correlation` is Spearman's,
    nan where values or rewards are all the same. Several rewards get their name before each figure.

    Args:
        values: (S, M) of each rollout, first to last state.
        scores: (N, M) z-scored rewards.
    """
    found: dict[str, float] = {}
    for column, name in enumerate(names):
        prefix = f"{name}_" if len(names) > 1 else ""
        reward = scores[:, column].double().numpy()  # (N,)
        everywhere = np.concatenate([v[:, column] for v in values])
        repeated = np.repeat(reward, [len(v) for v in values])
        found[f"{prefix}explained_variance"] = _explained(everywhere, repeated)
        for place, share in PLACES:
            there = np.array([v[int(share * (len(v) - 1)), column] for v in values])  # (N,)
            found[f"{prefix}explained_variance_{place}"] = _explained(there, reward)
            alike = len(np.unique(there)) < 2 or len(np.unique(reward)) < 2
            rank = float("nan") if alike else float(spearmanr(there, reward).statistic)  # type: ignore[attr-defined]
            found[f"{prefix}rank_correlation_{place}"] = rank
    return found


def _explained(values: np.ndarray, rewards: np.ndarray) -> float:
    variance = float(rewards.var())
    return 1 - float((rewards - values).var()) / variance if variance > 0 else float("nan")
