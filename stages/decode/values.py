"""Value models as the guides and scorers read them: which model's states, which columns, how strongly.

A value head belongs to a trunk. That is the policy itself (frozen: the head reads what the policy computes anyway), or
a model of its own: the one named by `model`, or the folder `model/` beside the head. Where that is the policy with its
upper layers tuned, it shares the layers below (`fork.py`).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from stages.engine.lanes import Lane, Lanes
from stages.engine.policy import CausalLM
from stages.engine.sampling import Base, Sampling
from stages.engine.tilt import OUTSIDE
from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead, fingerprint
from stages.learn.values.vocab_head import VocabHead, is_vocab_head

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


def trunk_states(
    lanes: Lanes, folder: Path, model: CausalLM | None, head: ValueHead | VocabHead, field: str, *, eager: bool
) -> tuple[Lane, int]:
    """The lane whose states a head of `folder` reads, and their place in what the lane reads. Raises BadInput where the
    model is another than the head was trained on."""
    if model is None and (folder / "model" / "config.json").is_file():
        model = CausalLM(folder / "model", dtype=str(lanes.base.policy.dtype).removeprefix("torch."))
    found = lanes.states(model, head.layer, f"{field}.model", eager=eager)
    trunk = lanes.base.policy.folder if model is None else Path(model.folder)
    if head.trunk != fingerprint(trunk):
        raise BadInput(
            f"{field}.folder",
            f"the value model in {folder} was trained on another trunk than {trunk}; "
            "train a value model for it, or name its own in `model`",
        )
    return found


def require_rewards(names: Sequence[str], reward: str | Sequence[str] | None, field: str) -> list[str]:
    """The rewards that are asked for, by default all of a head's. Raises BadInput for one that it does not have."""
    wanted = list(names) if reward is None else [reward] if isinstance(reward, str) else list(reward)
    for name in wanted:
        if name not in names:
            raise BadInput(f"{field}.reward", f"the value model has no reward {name!r}; it has {', '.join(names)}")
    return wanted


def reward_weights(
    head: ValueHead,
    folder: Path,
    reward: str | Sequence[str] | None,
    beta: float | Sequence[float],
    field: str,
    key: str,
) -> Tensor:
    """(M,) β of each of the head's rewards, 0 for those not named. Raises BadInput where they do not match. `key`
    is β's in the configuration."""
    names = ", ".join(head.rewards)
    wanted = require_rewards(head.rewards, reward, field)
    single = isinstance(beta, int | float)
    if single and len(wanted) > 1:
        raise BadInput(
            f"{field}.reward", f"the value model has several rewards ({names}); name one, or give {key} as a list"
        )
    strengths = [float(beta)] if isinstance(beta, int | float) else [float(one) for one in beta]
    if len(strengths) != len(wanted):
        raise BadInput(
            f"{field}.{key}",
            f"{len(strengths)} strengths for {len(wanted)} values of {folder} ({', '.join(wanted)}); give one each",
        )
    weights = torch.zeros(len(head.rewards), dtype=torch.float64)
    for name, strength in zip(wanted, strengths, strict=True):
        weights[head.rewards.index(name)] += strength
    return weights


class HeadValues:
    """Σᵢ βᵢ·Vᵢ of a scalar head on one lane: a scalar term, and what the scorer `Explicit` reads."""

    def __init__(self, name: str, lane: Lane, place: int, head: ValueHead, weights: Tensor, transform: str) -> None:
        self.name, self.lane, self.place, self.head, self.transform = name, lane, place, head, transform
        self.weights = weights.to(lane.device)
        self.flops = 2.0 * sum(p.numel() for p in head.parameters())

    def values(self, read: tuple[Tensor, ...]) -> Tensor:
        """(…) float64 of states (…, D)."""
        return transformed(self.head(read[self.place].float()).double(), self.transform) @ self.weights


def require_as_trained(head: ValueHead | VocabHead, lane: Lane, transform: str, field: str) -> None:
    """Raises BadInput where a head is read in another way than it was trained for."""
    if transform == "log_sigmoid" and head.target != "fudge":
        raise BadInput(
            f"{field}.transform",
            f"log_sigmoid takes FUDGE's logits, and this value was trained on {head.target}; train it on target fudge",
        )
    dtype = str(lane.policy.model.dtype).removeprefix("torch.")
    if head.dtype and head.dtype != dtype:
        raise BadInput(
            f"{field}.folder",
            f"the value was trained on states in {head.dtype} and would read them in {dtype}; use one dtype for both",
        )


def open_values(
    lanes: Lanes,
    folder: Path,
    model: CausalLM | None,
    reward: str | Sequence[str] | None,
    beta: float | Sequence[float],
    transform: str,
    field: str,
    *,
    eager: bool,
    key: str = "beta",
) -> HeadValues:
    """A scalar head on its lane."""
    folder = Path(folder)
    if is_vocab_head(folder):
        raise BadInput(f"{field}.folder", f"{folder} scores the whole vocabulary; use VocabValue for it")
    head = ValueHead.load(folder, field=f"{field}.folder")
    weights = reward_weights(head, folder, reward, beta, field, key)
    lane, place = trunk_states(lanes, folder, model, head, field, eager=eager)
    require_as_trained(head, lane, transform, field)
    return HeadValues(str(folder), lane, place, head.to(lane.device), weights, transform)


class VocabValues:
    """β·Q(s, ·) of a vocabulary-wide head on one lane: a dense term, and what the scorer `Explicit` reads."""

    def __init__(
        self,
        name: str,
        lane: Lane,
        place: int,
        head: VocabHead,
        beta: float,
        transform: str,
        k: int | None,
        outside: str,
    ) -> None:
        self.name = f"values of {name}"
        self.lane, self.place, self.head, self.beta = lane, place, head, beta
        self.transform, self.k, self.outside = transform, k, outside
        self.flops = 2.0 * sum(p.numel() for p in head.parameters())
        """Of Q(s, ·), as large a product as the language-model head's."""
        self.token_flops = 2.0 * (head.size + 1)
        """Of Q(s, a), one row of it."""

    def values(self, read: tuple[Tensor, ...]) -> Tensor:
        """(…, V) float32 β·Q of states (…, D)."""
        return transformed(self.head(read[self.place]), self.transform) * self.beta

    def of(self, read: tuple[Tensor, ...], token: Tensor) -> Tensor:
        """(R,) float32 β·Q(s, a) of states (R, D) and one token each, (R,)."""
        hidden, last = read[self.place].float(), self.head.last
        return transformed((hidden * last.weight[token]).sum(dim=1) + last.bias[token], self.transform) * self.beta

    def tilt(self, base: Base, sampling: Sampling) -> Tensor:
        """(R, V) float32: β·(Q − c) of the candidates, c their mean; 0 for other tokens, −inf for `drop`."""
        values = self.values(self.lane.read).to(base.weights.device)  # (R, V)
        if self.k is None:
            return values
        ids = base.likeliest(self.k)  # (R, C)
        chosen = values.gather(1, ids)
        supported = base.weights.gather(1, ids) > 0
        mean = chosen.where(supported, 0.0).sum(dim=1, keepdim=True) / supported.sum(dim=1, keepdim=True).clamp(min=1)
        others = -torch.inf if self.outside == "drop" else 0.0
        return torch.full_like(values, others).scatter_(1, ids, chosen - mean)


def open_vocab_values(
    lanes: Lanes,
    folder: Path,
    model: CausalLM | None,
    beta: float,
    transform: str,
    k: int | None,
    outside: str,
    field: str,
    *,
    eager: bool,
    reward: str | Sequence[str] | None = None,
) -> VocabValues:
    """A vocabulary-wide head on its lane. Raises BadInput where it scores another vocabulary than the policy's, or is
    not of the `reward` that is asked for."""
    folder = Path(folder)
    head = VocabHead.load(folder, field=f"{field}.folder")
    require_rewards([head.reward], reward, field)
    lane, place = trunk_states(lanes, folder, model, head, field, eager=eager)
    require_as_trained(head, lane, transform, field)
    policy = lane.policy if lane.own_tokens else lanes.base.policy
    if head.vocabulary != policy.vocabulary:
        raise BadInput(
            f"{field}.folder",
            f"the value model in {folder} scores {head.vocabulary} tokens, but the model {policy.folder} has "
            f"{policy.vocabulary}; train one for it",
        )
    return VocabValues(str(folder), lane, place, head.to(lane.device), beta, transform, k, outside)
