"""Scalar value heads as guides and scorers read them."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from stages.decode.values.settings import require_rewards, transformed
from stages.decode.values.trunk import require_as_trained, trunk_states
from stages.engine.causal_lm import CausalLM
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead
from stages.learn.values.vocab_head import is_vocab_head


def reward_strengths(
    head: ValueHead,
    folder: Path,
    reward: str | Sequence[str] | None,
    beta: float | Sequence[float],
    field: str,
    key: str,
) -> tuple[float, ...]:
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
    betas = [0.0] * len(head.rewards)
    for name, one in zip(wanted, strengths, strict=True):
        betas[head.rewards.index(name)] += one
    return tuple(betas)


class HeadValues:
    """The values of a scalar head on one lane: a scalar term, and what a scorer reads."""

    def __init__(
        self, name: str, lane: Lane, place: int, head: ValueHead, betas: tuple[float, ...], transform: str
    ) -> None:
        self.name, self.lane, self.place, self.head, self.transform = name, lane, place, head, transform
        self.betas = betas
        """(M,) of each of the head's rewards, 0 for those not asked for."""
        self.flops = 2.0 * sum(p.numel() for p in head.parameters())

    def values(self, states: tuple[Tensor, ...]) -> Tensor:
        """(…, M) float64 of states (…, D)."""
        return transformed(self.head(states[self.place].float()).double(), self.transform)


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
    betas = reward_strengths(head, folder, reward, beta, field, key)
    lane, place = trunk_states(lanes, folder, model, head, field, eager=eager)
    require_as_trained(head, lane, transform, field)
    return HeadValues(str(folder), lane, place, head.to(lane.device), betas, transform)
