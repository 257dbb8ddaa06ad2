"""A guided policy at work: every step, what the guides' terms make of the base distribution, and the draw.

Dense terms tilt every token from what the lanes already hold (`Implicit`, `VocabValue`); scalar terms tilt the k
candidates once these have gone through the value's model (`ScalarValue`). With both, the dense policy π₁ ∝ π₀·e^t is
what candidates are drawn from and tilted again. A step is `propose`, forwards of the scored lanes, `choose`; without
scalar terms the choice comes with the proposal, and only the chosen token is forwarded.

Every row has its own strengths β: S of them, one for each that the terms have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.engine import tilt
from stages.engine.distribution import Distribution, NotFinite
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.sampling import Sampling
from stages.engine.terms import DenseTerm, ScalarTerm, Terms


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
    tilt: Tensor
    """(R,) the token's own tilt t_a; 0 for a token outside the candidates."""

    @property
    def log_ratio(self) -> Tensor:
        """(R,) log π − log π₀ of the token, nats."""
        return self.logprob - self.base_logprob


@dataclass
class Dense:
    """π₁ ∝ π₀·e^t over the whole vocabulary."""

    distribution: Distribution
    tilt: Tensor
    """(R, V) float32, 0 where π₀ or π₁ is 0."""
    log_normaliser: Tensor
    """(R,) float64 log Σ π₀·e^t."""

    def expected_tilt(self) -> Tensor:
        """(R,) Σ π₁·t."""
        return (self.distribution.weights * self.tilt).sum(dim=1, dtype=torch.float64) / self.distribution.total


@dataclass
class Proposal:
    """Tokens to forward for R rows."""

    base: Distribution
    dense: Dense | None
    uniforms: Tensor
    """(R, 3) float64, this step's randomness."""
    betas: Tensor
    """(R, S) float64, the rows' strengths."""
    ids: Tensor
    """(R, F) token ids."""
    choice: Choice | None = None
    """Given where the forward is not needed to choose."""
    drawn: Tensor | None = None
    """(R,) the draw from π₁ (π₀ without dense terms)."""
    outside: Tensor | None = None
    """(R,) π₁ of all tokens that are no candidates."""

    @property
    def before(self) -> Distribution:
        """What the scalar terms tilt."""
        return self.base if self.dense is None else self.dense.distribution


class Steering:
    """Draws the next token of every row of `lanes` under `terms`."""

    def __init__(self, terms: Terms, lanes: Lanes, sampling: Sampling) -> None:
        self.lanes, self.sampling = lanes, sampling
        self.dense, self.scalar, self.candidates = terms.dense, terms.scalar, terms.candidates
        self.scored = list(dict.fromkeys(term.lane for term in self.scalar))
        """Lanes that forward all candidates."""
        self.betas = tuple(beta for term in [*self.dense, *self.scalar] for beta in term.betas)
        """(S,) the strengths of all terms, of the dense ones first."""
        self.drops = self.candidates is not None and self.candidates.outside == "drop"
        self.width = 1 if self.candidates is None else self.candidates.k + (0 if self.drops else 1)
        """F, tokens a row that the scored lanes forward."""
        values = 0 if self.candidates is None else self.candidates.k + int(self.candidates.outside == "prefix")
        self.flops = values * sum(term.flops for term in self.scalar) + sum(term.flops for term in self.dense)
        """FLOPs a row and step beyond the lanes' forwards."""

    def propose(self, uniforms: Tensor, betas: Tensor) -> Proposal:
        """From this step's `uniforms` (R, 3) and the rows' strengths `betas` (R, S).

        Without scalar terms the choice; else candidates and one token from outside them, drawn before the tilt is
        known, which does not touch it. Raises NotFinite.
        """
        assert self.lanes.policy.logits is not None
        base = Distribution.of(self.lanes.policy.logits, self.sampling)
        dense = self._dense(base, betas) if self.dense else None
        before = base if dense is None else dense.distribution
        if self.candidates is None:
            token = before.logits.argmax(dim=1) if self.sampling.greedy else before.draw(uniforms[:, 0])  # (R,)
            base_logprob = base.logprob(token[:, None])[:, 0]
            logprob, kl, tilted = base_logprob, torch.zeros_like(base_logprob), torch.zeros_like(base_logprob)
            if dense is not None:
                logprob = before.logprob(token[:, None])[:, 0]
                kl = dense.expected_tilt() - dense.log_normaliser
                tilted = dense.tilt.gather(1, token[:, None])[:, 0].double()
            choice = Choice(token, torch.zeros_like(token), logprob, base_logprob, kl, tilted)
            return Proposal(base, dense, uniforms, betas, token[:, None], choice)
        ids = before.likeliest(self.candidates.k)  # (R, C)
        if self.candidates.force_eos:
            eos = self.lanes.policy.lm.eos
            missing = ~(ids == eos).any(dim=1)  # (R,)
            ids[:, -1] = torch.where(missing, eos, ids[:, -1])
        drawn = before.draw(uniforms[:, 0])  # (R,)
        other, outside = before.draw_outside(ids, uniforms[:, 2])  # (R,), (R,)
        if self.drops:
            return Proposal(base, dense, uniforms, betas, ids, None, drawn, outside)
        if self.sampling.greedy:
            other = before.logits.scatter(1, ids, -torch.inf).argmax(dim=1)
        else:
            other = torch.where((ids == drawn[:, None]).any(dim=1), other, drawn)
        ids = torch.cat([ids, other[:, None]], dim=1)  # (R, C + 1)
        return Proposal(base, dense, uniforms, betas, ids, None, drawn, outside)

    def _dense(self, base: Distribution, betas: Tensor) -> Dense:
        """π₁ by weights·e^(t − m), where m = max(log weight + t): with t = 0 the weights stay what they were."""
        tilts = None
        for term, own in zip(self.dense, self._own(self.dense, betas), strict=True):
            found = term.tilt(base, self.sampling, own)  # (R, V)
            top = found.amax(dim=1)
            if bool((top.isnan() | (top == torch.inf)).any()):
                raise NotFinite(term.name, int((top.isnan() | (top == torch.inf)).nonzero()[0]))
            tilts = found if tilts is None else tilts + found
        assert tilts is not None
        tilts = tilts.masked_fill(base.weights == 0, -torch.inf)
        top = (base.weights.log() + tilts).amax(dim=1, keepdim=True)  # (R, 1)
        half = (tilts - top).div_(2).exp_()  # e^(t − m) may leave float32 where the weight is tiny; its root does not
        weights = (base.weights * half).mul_(half)
        tilted = Distribution.weighted(base.logits.float() / self.sampling.temperature + tilts, weights)
        log_normaliser = tilted.total.log() + top[:, 0].double() - base.total.log()
        if not bool(torch.isfinite(log_normaliser).all()):  # every token that π₀ draws has been ruled out
            names = " and ".join(term.name for term in self.dense)
            raise NotFinite(f"log-normalisers of {names}", int((~torch.isfinite(log_normaliser)).nonzero()[0]))
        return Dense(tilted, tilts.masked_fill_(weights == 0, 0.0), log_normaliser)

    def choose(self, proposal: Proposal, states: Mapping[Lane, tuple[Tensor, ...]]) -> Choice:
        """From the states (R, F, D) that the scored lanes gave for the proposal's tokens. Raises NotFinite."""
        assert self.candidates is not None
        assert proposal.outside is not None
        before, k = proposal.before, self.candidates.k
        ids = proposal.ids[:, :k]  # (R, C)
        candidates = {lane: tuple(one[:, :k] for one in found) for lane, found in states.items()}  # (R, C, D) each
        logprob = before.logprob(ids)  # (R, C)
        tilts = self._tilts(candidates, ~torch.isneginf(logprob), proposal.betas)  # (R, C)
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
        own = torch.nn.functional.pad(tilts, (0, 1)).gather(1, index[:, None])[:, 0]  # (R,), 0 outside
        if proposal.dense is not None:
            own = own + proposal.dense.tilt.gather(1, token)[:, 0]
        return Choice(token[:, 0], index, tilted_logprob, proposal.base.logprob(token)[:, 0], kl, own)

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

    def _tilts(self, states: Mapping[Lane, tuple[Tensor, ...]], supported: Tensor, betas: Tensor) -> Tensor:
        """(R, C) float64: the sum over all values of the candidates' `states` (R, C, D). Raises NotFinite."""
        assert self.candidates is not None
        kind, total = (
            self.candidates.outside,
            torch.zeros(supported.shape, dtype=torch.float64, device=supported.device),
        )
        for term, own in zip(self.scalar, self._own(self.scalar, betas), strict=True):
            values = self._values(term, states[term.lane])  # (R, C, M)
            prefix = self._values(term, term.lane.states) if kind == "prefix" else None  # (R, M)
            for m in range(own.shape[1]):
                centre = None if prefix is None else prefix[:, m]
                total = total + tilt.value_tilt(values[:, :, m], supported, own[:, m], kind, centre)
        return total / self.sampling.temperature if self.candidates.before_temperature else total

    def _values(self, term: ScalarTerm, states: tuple[Tensor, ...]) -> Tensor:
        """(…, M) on the policy's device."""
        values = term.values(states).to(self.lanes.policy.device)
        if not bool(torch.isfinite(values).all()):
            bad = ~torch.isfinite(values).reshape(values.shape[0], -1).all(dim=1)
            raise NotFinite(f"values of {term.name}", int(bad.nonzero()[0]))
        return values

    def _own(self, terms: Sequence[DenseTerm] | Sequence[ScalarTerm], betas: Tensor) -> Iterator[Tensor]:
        """(R, M) of the strengths (R, S) for each of the dense terms, or of the scalar ones, which follow them."""
        first = 0 if terms is self.dense else sum(len(term.betas) for term in self.dense)
        for term in terms:
            yield betas[:, first : first + len(term.betas)]
            first += len(term.betas)
