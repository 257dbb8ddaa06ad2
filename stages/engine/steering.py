"""A guided policy at work: every step, what the guides' terms make of the base distribution, and the draw.

Dense terms tilt every token from what the lanes already hold (`Implicit`, `VocabValue`); scalar terms tilt the k
candidates once these have gone through the value's model (`ScalarValue`). With both, the dense policy π₁ ∝ π₀·e^t is
what candidates are drawn from and tilted again. A step is `propose`, forwards of the scored lanes, `choose`; without
scalar terms the choice comes with the proposal, and only the chosen token is forwarded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from stages.engine import tilt
from stages.engine.lanes import Lane, Lanes
from stages.engine.sampling import Base, NotFinite, Sampling


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
class Dense:
    """π₁ ∝ π₀·e^t over the whole vocabulary."""

    policy: Base
    tilt: Tensor
    """(R, V) float32, 0 where π₀ or π₁ is 0."""
    log_normaliser: Tensor
    """(R,) float64 log Σ π₀·e^t."""

    def expected_tilt(self) -> Tensor:
        """(R,) Σ π₁·t."""
        return (self.policy.weights * self.tilt).sum(dim=1, dtype=torch.float64) / self.policy.total


@dataclass
class Proposal:
    """Tokens to forward for R rows."""

    base: Base
    dense: Dense | None
    uniforms: Tensor
    """(R, 3) float64, this step's randomness."""
    ids: Tensor
    """(R, F) token ids."""
    choice: Choice | None = None
    """Given where the forward is not needed to choose."""
    drawn: Tensor | None = None
    """(R,) the draw from π₁ (π₀ without dense terms)."""
    outside: Tensor | None = None
    """(R,) π₁ of all tokens that are no candidates."""

    @property
    def before(self) -> Base:
        """What the scalar terms tilt."""
        return self.base if self.dense is None else self.dense.policy


class DenseTerm(Protocol):
    name: str
    flops: float
    """FLOPs of one row's tilt beyond the lanes' forwards."""

    def tilt(self, base: Base, sampling: Sampling) -> Tensor:
        """(R, V) float32, from the lanes' newest logits or states; −inf where the token is never to be drawn."""
        ...


class ScalarTerm(Protocol):
    name: str
    lane: Lane
    flops: float
    """FLOPs of one value beyond the lane's forward."""

    def values(self, read: tuple[Tensor, ...]) -> Tensor:
        """(…) float64, strength included, from the lane's states (…, D)."""
        ...


@dataclass
class Candidates:
    """Which tokens the scalar terms tilt, and what the others get."""

    k: int
    outside: str = "mean"
    force_eos: bool = False
    before_temperature: bool = False
    """Tilts are divided by the temperature, as if they had been added to the raw logits (`compat: official`)."""


@dataclass
class Terms:
    """An opened guide: what it adds to the base policy's distribution. `Terms()` adds nothing."""

    lanes: Lanes | None = None
    dense: list[DenseTerm] = field(default_factory=list)
    scalar: list[ScalarTerm] = field(default_factory=list)
    candidates: Candidates | None = None


class Steering:
    """Draws the next token of every row of `lanes` under `terms`."""

    def __init__(self, terms: Terms, lanes: Lanes, sampling: Sampling) -> None:
        self.lanes, self.sampling = lanes, sampling
        self.dense, self.scalar, self.candidates = terms.dense, terms.scalar, terms.candidates
        self.scored = list(dict.fromkeys(term.lane for term in self.scalar))
        self.drops = self.candidates is not None and self.candidates.outside == "drop"
        self.width = 1 if self.candidates is None else self.candidates.k + (0 if self.drops else 1)
        """F, tokens a row that the scored lanes forward."""
        values = 0 if self.candidates is None else self.candidates.k + int(self.candidates.outside == "prefix")
        self.flops = values * sum(term.flops for term in self.scalar) + sum(term.flops for term in self.dense)
        """FLOPs a row and step beyond the lanes' forwards."""

    def propose(self, uniforms: Tensor) -> Proposal:
        """Without scalar terms the choice; else candidates and one token from outside them, drawn before the tilt is
        known, which does not touch it. Raises NotFinite."""
        assert self.lanes.base.logits is not None
        base = Base.of(self.lanes.base.logits, self.sampling)
        dense = self._dense(base) if self.dense else None
        before = base if dense is None else dense.policy
        if self.candidates is None:
            token = before.logits.argmax(dim=1) if self.sampling.greedy else before.draw(uniforms[:, 0])  # (R,)
            base_logprob = base.logprob(token[:, None])[:, 0]
            logprob, kl = base_logprob, torch.zeros_like(base_logprob)
            if dense is not None:
                logprob = before.logprob(token[:, None])[:, 0]
                kl = dense.expected_tilt() - dense.log_normaliser
            choice = Choice(token, torch.zeros_like(token), logprob, base_logprob, kl)
            return Proposal(base, dense, uniforms, token[:, None], choice)
        ids = before.likeliest(self.candidates.k)  # (R, C)
        if self.candidates.force_eos:
            eos = self.lanes.base.policy.eos
            missing = ~(ids == eos).any(dim=1)  # (R,)
            ids[:, -1] = torch.where(missing, eos, ids[:, -1])
        drawn = before.draw(uniforms[:, 0])  # (R,)
        other, outside = before.draw_outside(ids, uniforms[:, 2])  # (R,), (R,)
        if self.drops:
            return Proposal(base, dense, uniforms, ids, None, drawn, outside)
        if self.sampling.greedy:
            other = before.logits.scatter(1, ids, -torch.inf).argmax(dim=1)
        else:
            other = torch.where((ids == drawn[:, None]).any(dim=1), other, drawn)
        ids = torch.cat([ids, other[:, None]], dim=1)  # (R, C + 1)
        return Proposal(base, dense, uniforms, ids, None, drawn, outside)

    def _dense(self, base: Base) -> Dense:
        """π₁ by weights·e^(t − m), where m = max(log weight + t): with t = 0 the weights stay what they were."""
        tilts = None
        for term in self.dense:
            found = term.tilt(base, self.sampling)  # (R, V)
            top = found.amax(dim=1)
            if bool((top.isnan() | (top == torch.inf)).any()):
                raise NotFinite(term.name, int((top.isnan() | (top == torch.inf)).nonzero()[0]))
            tilts = found if tilts is None else tilts + found
        assert tilts is not None
        tilts = tilts.masked_fill(base.weights == 0, -torch.inf)
        top = (base.weights.log() + tilts).amax(dim=1, keepdim=True)  # (R, 1)
        half = (tilts - top).div_(2).exp_()  # e^(t − m) may leave float32 where the weight is tiny; its root does not
        weights = (base.weights * half).mul_(half)
        policy = Base.weighted(base.logits.float() / self.sampling.temperature + tilts, weights)
        log_normaliser = policy.total.log() + top[:, 0].double() - base.total.log()
        if not bool(torch.isfinite(log_normaliser).all()):  # every token that π₀ draws has been ruled out
            names = " and ".join(term.name for term in self.dense)
            raise NotFinite(f"log-normalisers of {names}", int((~torch.isfinite(log_normaliser)).nonzero()[0]))
        return Dense(policy, tilts.masked_fill_(weights == 0, 0.0), log_normaliser)

    def choose(self, proposal: Proposal, read: Mapping[Lane, tuple[Tensor, ...]]) -> Choice:
        """From the states (R, F, D) that the scored lanes gave for the proposal's tokens."""
        assert self.candidates is not None
        assert proposal.outside is not None
        before, k, kind = proposal.before, self.candidates.k, self.candidates.outside
        ids = proposal.ids[:, :k]  # (R, C)
        values = self._values({lane: tuple(s[:, :k] for s in states) for lane, states in read.items()})  # (R, C)
        prefix = self._values({lane: lane.read for lane in self.scored}) if kind == "prefix" else None  # (R,)
        logprob = before.logprob(ids)  # (R, C)
        tilts = tilt.value_tilt(values, ~torch.isneginf(logprob), 1.0, kind, prefix)
        if self.candidates.before_temperature:
            tilts = tilts / self.sampling.temperature
        log_outside = torch.full_like(proposal.outside, -torch.inf) if self.drops else proposal.outside.log()
        policy = tilt.tilted(logprob, tilts, log_outside)
        index = self._pick(proposal, policy, logprob.exp())  # (R,)
        token = proposal.ids.gather(1, index[:, None].clamp(max=self.width - 1))  # (R, 1)
        outside = before.logprob(token)[:, 0] - policy.log_normaliser
        tilted_logprob = torch.cat([policy.logprob, outside[:, None]], dim=1).gather(1, index[:, None])[:, 0]
        kl = policy.kl
        if proposal.dense is not None:  # KL(π ‖ π₀) = KL(π ‖ π₁) + Σ π·t − log Z₁, the outside scaled by e^(−log Z)
            inside = proposal.dense.tilt.gather(1, ids).double()  # (R, C)
            rest = proposal.dense.expected_tilt() - (logprob.exp() * inside).sum(dim=1)
            share = torch.zeros_like(rest) if self.drops else (-policy.log_normaliser).exp()
            expected = (policy.logprob.exp() * inside).sum(dim=1) + share * rest
            kl = kl + expected - proposal.dense.log_normaliser
        return Choice(token[:, 0], index, tilted_logprob, proposal.base.logprob(token)[:, 0], kl)

    def _pick(self, proposal: Proposal, policy: tilt.Tilted, probability: Tensor) -> Tensor:
        """(R,) index among the candidates, k for the token from outside."""
        assert self.candidates is not None
        if self.sampling.greedy:
            return tilt.likeliest(policy, proposal.before.logprob(proposal.ids[:, -1:])[:, 0])
        assert proposal.drawn is not None
        assert proposal.outside is not None
        ids = proposal.ids[:, : self.candidates.k]
        place = tilt.place_in_base(proposal.drawn, ids, probability, proposal.outside, proposal.uniforms[:, 1])
        return tilt.pick(policy, place)

    def _values(self, read: Mapping[Lane, tuple[Tensor, ...]]) -> Tensor:
        """(R, …) float64: the sum over scalar terms. Raises NotFinite."""
        total = None
        for term in self.scalar:
            values = term.values(read[term.lane]).to(self.lanes.base.device)
            if not bool(torch.isfinite(values).all()):
                bad = ~torch.isfinite(values).reshape(values.shape[0], -1).all(dim=1)
                raise NotFinite(f"values of {term.name}", int(bad.nonzero()[0]))
            total = values if total is None else total + values
        assert total is not None
        return total
