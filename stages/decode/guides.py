"""Token guides: what tilts the base policy's next-token distribution.

A guide is configuration (`TokenGuide`); `open` turns it into the state that the engine steps (`Steering`). A step is
`propose` (which tokens go through the model), one forward, `choose` (which of them is the next token). A guide that
needs no forward to decide returns its choice with the proposal, and then the chosen token alone is forwarded.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from stages.decode import tilt
from stages.decode.policy import Policy
from stages.decode.sampling import Base, NotFinite, Sampling
from stages.errors import BadInput
from stages.learn.value_model import ValueHead, fingerprint


@dataclass
class Choice:
    """The next token of R rows, float64 where not an index."""

    token: Tensor
    """(R,) token ids."""
    index: Tensor
    """(R,) which of the F forwarded tokens it is."""
    logprob: Tensor
    """(R,) log π of the token, as sampled."""
    base_logprob: Tensor
    """(R,) log π₀ of the token, as sampled."""
    kl: Tensor
    """(R,) KL(π ‖ π₀) of this step, nats."""


@dataclass
class Proposal:
    """Tokens to forward for R rows."""

    base: Base
    uniforms: Tensor
    """(R, 3) float64, this step's randomness."""
    ids: Tensor
    """(R, F) token ids."""
    choice: Choice | None = None
    """Given where the forward is not needed to choose."""
    drawn: Tensor | None = None
    """(R,) the base's own draw."""
    outside: Tensor | None = None
    """(R,) π₀ of all tokens that are no candidates."""


class Steering(Protocol):
    """A guide at work."""

    layer: int | None
    """Hidden layer (Hugging Face's numbering) whose states `choose` reads; None: none."""
    width: int
    """F, tokens forwarded a row and step."""
    flops: float
    """FLOPs a row and step beyond the policy's own."""

    def propose(self, base: Base, uniforms: Tensor) -> Proposal: ...

    def choose(self, proposal: Proposal, hidden: Tensor, prefix: Tensor) -> Choice:
        """From `hidden` (R, F, D) of the forwarded tokens and `prefix` (R, D) of the token before them."""
        ...


class TokenGuide(Protocol):
    """Configuration of a guide."""

    def check(self, field: str = "guide") -> None:
        """Raises BadInput for values that no policy could use."""
        ...

    def open(self, policy: Policy, sampling: Sampling, field: str = "guide") -> Steering:
        """Loads what the guide needs. Raises BadInput for what does not fit this policy."""
        ...


@dataclass
class Unguided:
    """The base policy itself."""

    greedy: bool
    layer: int | None = None
    width: int = 1
    flops: float = 0.0

    def propose(self, base: Base, uniforms: Tensor) -> Proposal:
        token = base.logits.argmax(dim=1) if self.greedy else base.draw(uniforms[:, 0])  # (R,)
        logprob = base.logprob(token[:, None])[:, 0]
        choice = Choice(token, torch.zeros_like(token), logprob, logprob, torch.zeros_like(logprob))
        return Proposal(base, uniforms, token[:, None], choice)

    def choose(self, proposal: Proposal, hidden: Tensor, prefix: Tensor) -> Choice:
        raise AssertionError("the base policy chooses before its forward")


@dataclass
class ScalarValue:
    """Value Augmented Sampling (arXiv 2405.06639) with a value head on the policy's own frozen trunk.

    π(a|s) ∝ π₀(a|s)·exp(β·(V(s⊕a) − c)) for the k most likely tokens; `outside` says what c is and what the others get
    (`tilt.OUTSIDE`). The candidates go through the trunk in one forward, together with the one token that the base
    would draw outside them, so whichever token is chosen, its next logits are there: one forward a token. EOS is a
    candidate like any other.
    """

    folder: Path
    """A value model's folder (`stages/learn/value_model.py`), trained on this policy's trunk."""
    beta: float = 1.0
    """Strength: multiplies the z-scored value after temperature; 0 = base."""
    k: int = 10
    """Candidates."""
    outside: str = "mean"
    reward: str | None = None
    """Which of the value model's rewards; may be left out where it has one."""
    force_eos_candidate: bool = field(default=False, kw_only=True)
    """Put EOS in the last candidate's place where it is not among them."""

    def check(self, field: str = "guide") -> None:
        """Raises BadInput for values that no policy could use."""
        if not math.isfinite(self.beta):
            raise BadInput(f"{field}.beta", f"{self.beta} is not a finite number; 0 is the base policy")
        if self.k < 1:
            raise BadInput(f"{field}.k", f"{self.k} is not a positive number of candidates")
        if self.force_eos_candidate and self.k < 2:
            raise BadInput(f"{field}.k", "force_eos_candidate takes one candidate's place; choose k of at least 2")
        if self.outside not in tilt.OUTSIDE:
            raise BadInput(f"{field}.outside", f"{self.outside!r} is not one of {', '.join(tilt.OUTSIDE)}")

    def open(self, policy: Policy, sampling: Sampling, field: str = "guide") -> "ScalarValueSteering":
        """Loads the head. Raises BadInput for k > V, an unknown reward, a head of another trunk."""
        self.check(field)
        if self.k > policy.vocabulary:
            raise BadInput(
                f"{field}.k",
                f"{self.k} candidates, but the vocabulary has {policy.vocabulary} tokens; "
                f"choose k between 1 and {policy.vocabulary}",
            )
        folder = Path(self.folder)
        head = ValueHead.load(folder, str(policy.device), f"{field}.folder")
        if head.trunk != fingerprint(policy.folder):
            raise BadInput(
                f"{field}.folder",
                f"the value model in {folder} was trained on another trunk than {policy.folder}; "
                "train a value model for this policy",
            )
        names = ", ".join(head.rewards)
        if self.reward is None and len(head.rewards) > 1:
            raise BadInput(f"{field}.reward", f"the value model has several rewards ({names}); name one")
        if self.reward is not None and self.reward not in head.rewards:
            raise BadInput(f"{field}.reward", f"the value model has no reward {self.reward!r}; it has {names}")
        column = 0 if self.reward is None else head.rewards.index(self.reward)
        return ScalarValueSteering(self, head, column, policy.eos, sampling.greedy)


class ScalarValueSteering:
    """`ScalarValue` at work on one policy."""

    def __init__(self, guide: ScalarValue, head: ValueHead, column: int, eos: int, greedy: bool) -> None:
        self.guide, self.head, self.column, self.eos, self.greedy = guide, head, column, eos, greedy
        self.drops = guide.outside == "drop"
        self.layer = head.layer
        self.width = guide.k + (0 if self.drops else 1)
        values = guide.k + (1 if guide.outside == "prefix" else 0)
        self.flops = 2.0 * sum(p.numel() for p in head.parameters()) * values

    def propose(self, base: Base, uniforms: Tensor) -> Proposal:
        """Candidates, then one token from outside them: drawn before the tilt is known, which does not touch it."""
        ids = base.likeliest(self.guide.k)  # (R, C)
        if self.guide.force_eos_candidate:
            missing = ~(ids == self.eos).any(dim=1)  # (R,)
            ids[:, -1] = torch.where(missing, self.eos, ids[:, -1])
        drawn = base.draw(uniforms[:, 0])  # (R,)
        other, outside = base.draw_outside(ids, uniforms[:, 2])  # (R,), (R,)
        if self.drops:
            return Proposal(base, uniforms, ids, None, drawn, outside)
        if self.greedy:
            other = base.logits.scatter(1, ids, -torch.inf).argmax(dim=1)
        else:
            other = torch.where((ids == drawn[:, None]).any(dim=1), other, drawn)
        return Proposal(base, uniforms, torch.cat([ids, other[:, None]], dim=1), None, drawn, outside)  # (R, C + 1)

    def choose(self, proposal: Proposal, hidden: Tensor, prefix: Tensor) -> Choice:
        base, k = proposal.base, self.guide.k
        ids = proposal.ids[:, :k]  # (R, C)
        values = self._value(hidden[:, :k])  # (R, C)
        prefix_value = self._value(prefix) if self.guide.outside == "prefix" else None  # (R,)
        logprob = base.logprob(ids)  # (R, C)
        tilts = tilt.value_tilt(values, ~torch.isneginf(logprob), self.guide.beta, self.guide.outside, prefix_value)
        assert proposal.outside is not None
        log_outside = torch.full_like(proposal.outside, -torch.inf) if self.drops else proposal.outside.log()
        policy = tilt.tilted(logprob, tilts, log_outside)
        index = self._pick(proposal, policy, logprob.exp())  # (R,)
        token = proposal.ids.gather(1, index[:, None].clamp(max=self.width - 1))  # (R, 1)
        base_logprob = base.logprob(token)[:, 0]
        outside = base_logprob - policy.log_normaliser
        tilted_logprob = torch.cat([policy.logprob, outside[:, None]], dim=1).gather(1, index[:, None])[:, 0]
        return Choice(token[:, 0], index, tilted_logprob, base_logprob, policy.kl)

    def _pick(self, proposal: Proposal, policy: tilt.Tilted, probability: Tensor) -> Tensor:
        """(R,) index among the candidates, k for the token from outside."""
        if self.greedy:
            last = proposal.base.logprob(proposal.ids[:, -1:])[:, 0]
            return tilt.likeliest(policy, last)
        assert proposal.drawn is not None
        assert proposal.outside is not None
        ids = proposal.ids[:, : self.guide.k]
        place = tilt.place_in_base(proposal.drawn, ids, probability, proposal.outside, proposal.uniforms[:, 1])
        return tilt.pick(policy, place)

    def _value(self, hidden: Tensor) -> Tensor:
        """(…) float64 values of hidden states (…, D)."""
        values = self.head(hidden.float())[..., self.column].double()
        if not bool(torch.isfinite(values).all()):
            bad = ~torch.isfinite(values).reshape(values.shape[0], -1).all(dim=1)
            raise NotFinite(f"values of {self.guide.folder}", int(bad.nonzero()[0]))
        return values
