"""What may be set about values: how a value is used, how strongly, on how many candidates. Checks of each."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stages.engine.tilt import OUTSIDE
from stages.errors import BadInput

TRANSFORMS = ("identity", "log_sigmoid")


def transformed(values: Tensor, transform: str) -> Tensor:
    """A value as it is used. `log_sigmoid`: FUDGE (arXiv 2104.05218), log σ(f) of a classifier's logit f.

    Example: f = 0 → log ½ = −.6931.
    """
    return torch.nn.functional.logsigmoid(values) if transform == "log_sigmoid" else values


def require_transform(transform: str, field: str) -> None:
    if transform not in TRANSFORMS:
        raise BadInput(f"{field}.transform", f"{transform!r} is not one of {', '.join(TRANSFORMS)}")


def require_outside(outside: str, field: str) -> None:
    if outside not in OUTSIDE:
        raise BadInput(f"{field}.outside", f"{outside!r} is not one of {', '.join(OUTSIDE)}")


def require_strength(beta: float | Sequence[float], field: str) -> None:
    """`field` is the strength's own key."""
    for one in [beta] if isinstance(beta, int | float) else list(beta):
        if not math.isfinite(one):
            raise BadInput(field, f"{one} is not a finite number; 0 is the base policy")


def require_one_strength(beta: float | Sequence[float], field: str) -> float:
    """The strength of a value that has one only."""
    if not isinstance(beta, int | float):
        raise BadInput(field, f"{len(beta)} strengths for the one value of a head over the vocabulary; give a number")
    return beta


def require_candidates(k: int, vocabulary: int, field: str) -> None:
    if k > vocabulary:
        raise BadInput(
            f"{field}.k",
            f"{k} candidates, but the vocabulary has {vocabulary} tokens; choose k between 1 and {vocabulary}",
        )


def require_rewards(names: Sequence[str], reward: str | Sequence[str] | None, field: str) -> list[str]:
    """The rewards that are asked for, by default all of a head's. Raises BadInput for one that it does not have."""
    wanted = list(names) if reward is None else [reward] if isinstance(reward, str) else list(reward)
    for name in wanted:
        if name not in names:
            raise BadInput(f"{field}.reward", f"the value model has no reward {name!r}; it has {', '.join(names)}")
    return wanted
