"""What the two kinds of value head have in common, for all that trains, opens or measures a value.

`scalar_head.ValueHead` gives the value of the state that it reads, `vocab_head.VocabHead` those of all states that the
next token may lead to.
"""

from pathlib import Path
from typing import Protocol

from torch import Tensor

from stages.learn.values.scalar_head import ValueHead
from stages.learn.values.vocab_head import VocabHead, is_vocab_head


class ValueModel(Protocol):
    """A head of either kind, for M rewards on states of size D."""

    first_state: int
    """The first state of a response that has a value: 0, or 1 where a state is known by the token that led to it."""
    over_vocabulary: bool
    """Whether calling it gives values of all next tokens."""
    layer: int
    """Which of the trunk's hidden states it reads."""
    trunk: str
    """Fingerprint of the trunk."""
    dtype: str
    """The trunk's while the head was trained."""
    mean: Tensor
    sd: Tensor
    """(M,) each: reward = mean + sd · value."""

    @property
    def rewards(self) -> tuple[str, ...]:
        """Names of the M rewards."""
        ...

    def __call__(self, hidden: Tensor) -> Tensor:
        """Values of states (…, D): (…, M), or (…, V) over the vocabulary."""
        ...

    def along(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """(…, S, M) values of a response's states from `first_state` on, given all of them, (…, T+1, D), and the T
        tokens between them, (…, T)."""
        ...


def new_head(
    kind: str, *, size: int, vocabulary: int, rewards: list[str], width: int, layer: int, dtype: str, target: str
) -> ValueHead | VocabHead:
    """An untrained head: `vocab`, or one of `scalar_head.HEADS`. Raises BadInput for another kind."""
    if kind == "vocab":
        return VocabHead(size=size, vocabulary=vocabulary, reward=rewards[0], layer=layer, dtype=dtype, target=target)
    return ValueHead(size=size, rewards=rewards, head=kind, width=width, layer=layer, dtype=dtype, target=target)


def load_head(folder: Path, device: str = "cpu", field: str = "value") -> ValueHead | VocabHead:
    """The head of either kind. Raises BadInput where the folder holds none."""
    return (VocabHead if is_vocab_head(folder) else ValueHead).load(Path(folder), device, field)
