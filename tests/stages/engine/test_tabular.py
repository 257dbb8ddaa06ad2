"""Exact KL on a tabular MDP of four tokens and three steps: dynamic programming over prefixes against all 64 leaves."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stages.engine.distribution import Distribution
from stages.engine.sampling import Sampling
from stages.engine.steering import Steering
from stages.engine.terms import Candidates, Terms

V, T = 4, 3
PREFIXES = [prefix for n in range(T) for prefix in itertools.product(range(V), repeat=n)]
TABLE = np.random.default_rng(7)
LOGITS = {prefix: TABLE.normal(size=V) * 2 for prefix in PREFIXES}
VALUES = {prefix: TABLE.normal() for n in range(T + 1) for prefix in itertools.product(range(V), repeat=n)}
WIDE = {prefix: TABLE.normal(size=V) for prefix in PREFIXES}


class Table:
    """A lane, a scalar term and a dense term that look everything up; row i stands at PREFIXES[i]."""

    name, flops, device = "table", 0.0, torch.device("cpu")

    def __init__(self, beta: float) -> None:
        self.lane, self.policy, self.betas = self, self, (beta,)
        self.logits = torch.tensor(np.stack([LOGITS[p] for p in PREFIXES])).float()
        self.lm = SimpleNamespace(eos=3)
        self.states = (torch.tensor([VALUES[p] for p in PREFIXES])[:, None],)

    def values(self, states: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return states[0]  # (…, 1)

    def tilt(self, base: Distribution, sampling: Sampling, betas: torch.Tensor) -> torch.Tensor:
        return betas.float() * torch.tensor(np.stack([WIDE[p] for p in PREFIXES])).float()


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max())
    return p / p.sum()


def policy_at(
    prefix: tuple[int, ...], sampling: Sampling, beta: float, weight: float, kind: Candidates
) -> tuple[np.ndarray, np.ndarray]:
    """(π₀, π) by their definitions: π₀ ∝ e^(z/τ), π₁ ∝ π₀·e^(w·q); of it the k candidates times e^t, normalised."""
    z = LOGITS[prefix].astype(np.float32).astype(float) / sampling.temperature
    base = softmax(z)
    pi = softmax(z + weight * WIDE[prefix].astype(np.float32))
    candidates = np.argsort(-pi)[: kind.k]
    values = beta * np.array([VALUES[(*prefix, a)] for a in candidates])
    centre = beta * VALUES[prefix] if kind.outside == "prefix" else values.mean()
    tilts = (values - centre) / (sampling.temperature if kind.before_temperature else 1)
    tilted = np.zeros(V) if kind.outside == "drop" else pi.copy()
    tilted[candidates] = pi[candidates] * np.exp(tilts)
    return base, tilted / tilted.sum()


@pytest.mark.parametrize("weight", [0.0, 0.8])
@pytest.mark.parametrize(
    "kind",
    [Candidates(2), Candidates(3, "prefix"), Candidates(2, "drop"), Candidates(4), Candidates(2, "mean", False, True)],
    ids=["mean", "prefix", "drop", "all", "official"],
)
def test_summed_kl_equals_the_kl_of_all_leaves(kind: Candidates, weight: float) -> None:
    """KL(s) = KLₜ(s) + Σ π(a|s)·KL(s⊕a), the steps' KL from the engine's own arithmetic, to 1e-6."""
    beta, sampling = 1.3, Sampling(temperature=0.8)
    value: Any = Table(beta)
    wide: Any = Table(weight)
    steering = Steering(Terms([wide], [value], kind), value, sampling)
    betas = torch.tensor([[weight, beta]], dtype=torch.float64).expand(len(PREFIXES), -1)
    proposal = steering.propose(torch.full((len(PREFIXES), 3), 0.4, dtype=torch.float64), betas)
    states = [[VALUES[(*prefix, int(a))] for a in row] for prefix, row in zip(PREFIXES, proposal.ids, strict=True)]
    choice = steering.choose(proposal, {value: (torch.tensor(states)[..., None],)})
    step = dict(zip(PREFIXES, choice.kl.tolist(), strict=True))
    policies = {prefix: policy_at(prefix, sampling, beta, weight, kind) for prefix in PREFIXES}

    def total(prefix: tuple[int, ...]) -> float:
        if len(prefix) == T:
            return 0.0
        pi = policies[prefix][1]
        return step[prefix] + sum(pi[a] * total((*prefix, a)) for a in range(V) if pi[a] > 0)

    leaves = 0.0
    for leaf in itertools.product(range(V), repeat=T):
        pairs = [policies[leaf[:n]] for n in range(T)]
        pi = math.prod(pair[1][a] for pair, a in zip(pairs, leaf, strict=True))
        base = math.prod(pair[0][a] for pair, a in zip(pairs, leaf, strict=True))
        leaves += pi * math.log(pi / base) if pi > 0 else 0.0
    assert leaves > 0.05
    assert total(()) == pytest.approx(leaves, abs=1e-6)
    for row, prefix in enumerate(PREFIXES):
        token = int(choice.token[row])
        assert choice.logprob[row].exp().item() == pytest.approx(policies[prefix][1][token], abs=1e-6)
        assert choice.base_logprob[row].exp().item() == pytest.approx(policies[prefix][0][token], abs=1e-6)
