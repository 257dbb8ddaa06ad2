"""What a value may be trained on: a class a target, by the name that `value.target` gives it.

    td_lambda   returns of TD(λ), with which VAS is trained (arXiv 2405.06639)
    fudge       whether the reward will be above its mean (arXiv 2104.05218)
    soft        the value of the KL-optimal policy, which is not VAS (arXiv 2502.20548)
    bellman     Controlled Decoding's expectation over the next token (arXiv 2310.17022)

A target of your own is a class beside these, with a name in `TARGETS`; `conf/schemas/training.py` lists the names that
`value.target` may take.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from stages.errors import BadInput
from stages.learn.values.prefix_losses import bellman_targets, fudge_loss, soft_loss
from stages.learn.values.td_lambda import td_lambda

Distribution = Callable[[Tensor], Tensor]
"""π₀'s next-token probabilities (…, V) from its final hidden states (…, D)."""


class Batch(NamedTuple):
    """B responses as a target reads them, padded to S states each; what stands behind a response's end is not read."""

    values: Tensor
    """(B, S, M) of s₀ … s_T, or of s₁ … s_T where the head gives the first state no value."""
    rewards: Tensor
    """(B, M) z-scored."""
    last: Tensor
    """(B,) where each response's last state stands among its S."""
    next_values: Callable[[], Tensor]
    """() → (B, T+1, V) values of all tokens that may follow s₀ … s_T; of a head over the vocabulary alone."""
    final_states: Callable[[], Tensor]
    """() → (B, T+1, D) π₀'s final hidden states of s₀ … s_T; for a target that says it reads them."""


class Settings(NamedTuple):
    """Settings of the stage `value` that a target may use."""

    td_lambda: float
    eta: float
    distribution: Callable[[], Distribution]
    """Loads π₀."""


class Target(Protocol):
    """What a value is trained on."""

    final_states: ClassVar[bool]
    """Whether it asks for `Batch.final_states`: then the trunk has to be π₀ itself, frozen."""

    @classmethod
    def of(cls, settings: Settings) -> "Target":
        """The target with what it needs of the stage's settings."""
        ...

    def check(self, over_vocabulary: bool) -> None:
        """Raises BadInput where a head cannot learn it; `over_vocabulary`: it gives values of all next tokens."""
        ...

    def losses(self, batch: Batch) -> Tensor:
        """(B, S, M) loss of every state and reward; the caller leaves padding out."""
        ...


class EveryHead:
    """A target that heads of every kind can learn, on any trunk."""

    final_states: ClassVar[bool] = False

    def check(self, over_vocabulary: bool) -> None:
        pass


@dataclass(frozen=True)
class TdLambda(EveryHead):
    """½·(V − return)², the returns of `td_lambda`."""

    lam: float

    @classmethod
    def of(cls, settings: Settings) -> "TdLambda":
        return cls(settings.td_lambda)

    def losses(self, batch: Batch) -> Tensor:
        returns = td_lambda(batch.values, batch.rewards, batch.last, self.lam)
        return 0.5 * (batch.values - returns).square()


@dataclass(frozen=True)
class Fudge(EveryHead):
    """`fudge_loss`; the attribute is a reward above the mean, which z-scoring puts at 0."""

    @classmethod
    def of(cls, settings: Settings) -> "Fudge":
        return cls()

    def losses(self, batch: Batch) -> Tensor:
        return fudge_loss(batch.values, (batch.rewards > 0).float()[:, None].expand_as(batch.values))


@dataclass(frozen=True)
class Soft(EveryHead):
    """`soft_loss`: every state is asked for the final reward."""

    eta: float

    @classmethod
    def of(cls, settings: Settings) -> "Soft":
        return cls(settings.eta)

    def losses(self, batch: Batch) -> Tensor:
        return soft_loss(batch.values, batch.rewards[:, None].expand_as(batch.values), self.eta)


@dataclass(frozen=True)
class Bellman:
    """½·(V − target)² of s₁ … s_T, the targets of `bellman_targets`."""

    distribution: Distribution
    final_states: ClassVar[bool] = True

    @classmethod
    def of(cls, settings: Settings) -> "Bellman":
        return cls(settings.distribution())

    def check(self, over_vocabulary: bool) -> None:
        if not over_vocabulary:
            raise BadInput(
                "target",
                "CD's Bellman target is an expectation over the vocabulary; it needs head=vocab "
                "(td_lambda=0 bootstraps from the token that was drawn)",
            )

    def losses(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            probabilities = self.distribution(batch.final_states())  # (B, T+1, V)
            lengths = batch.last + 1  # a head over the vocabulary starts at s₁
            wanted = bellman_targets(batch.next_values(), probabilities, batch.rewards[:, 0], lengths)  # (B, T+1)
        return 0.5 * (batch.values - wanted[:, 1:, None]).square()


TARGETS: dict[str, type[Target]] = {"td_lambda": TdLambda, "fudge": Fudge, "soft": Soft, "bellman": Bellman}


def target_named(name: str) -> type[Target]:
    """The class of a target. Raises BadInput for a name that none has."""
    if name not in TARGETS:
        raise BadInput("target", f"{name!r} is no target; choose one of {', '.join(TARGETS)}")
    return TARGETS[name]
