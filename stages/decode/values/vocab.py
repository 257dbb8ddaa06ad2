"""Value heads over the vocabulary as guides and scorers read them."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from stages.decode.values.settings import require_rewards, transformed
from stages.decode.values.trunk import require_as_trained, trunk_states
from stages.engine.causal_lm import CausalLM
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.errors import BadInput
from stages.learn.values.vocab_head import VocabHead


class VocabValues:
    """Q(s, ·) of a head over the vocabulary on one lane."""

    def __init__(self, name: str, lane: Lane, place: int, head: VocabHead, transform: str) -> None:
        self.name, self.lane, self.place, self.head, self.transform = name, lane, place, head, transform
        self.flops = 2.0 * sum(p.numel() for p in head.parameters())
        """Of Q(s, ·), as large a product as the language-model head's."""
        self.token_flops = 2.0 * (head.size + 1)
        """Of Q(s, a), one row of it."""

    def values(self, states: tuple[Tensor, ...]) -> Tensor:
        """(…, V) float32 Q of states (…, D)."""
        return transformed(self.head(states[self.place]), self.transform)

    def taken(self, states: tuple[Tensor, ...], tokens: Tensor) -> Tensor:
        """(R,) float32 Q(s, a) of states (R, D) and one token each, (R,)."""
        return transformed(self.head.taken(states[self.place], tokens), self.transform)


def open_vocab_values(
    lanes: Lanes,
    folder: Path,
    model: CausalLM | None,
    transform: str,
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
    lm = lane.lm if lane.own_tokens else lanes.policy.lm
    if head.vocabulary != lm.vocabulary:
        raise BadInput(
            f"{field}.folder",
            f"the value model in {folder} scores {head.vocabulary} tokens, but the model {lm.folder} has "
            f"{lm.vocabulary}; train one for it",
        )
    return VocabValues(str(folder), lane, place, head.to(lane.device), transform)
