"""The draw of one step, given values and tilts; and what is said where a model gives no number."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.vocab_value import VocabValue
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Draw, Sampling
from stages.engine.steering import Steering
from stages.engine.terms import Candidates, Terms


class Given:
    """A lane and a term whose states are one-dimensional: the value itself."""

    name = "given"
    flops = 0.0
    device = torch.device("cpu")

    def __init__(self, logits: torch.Tensor, eos: int, beta: float) -> None:
        self.logits, self.lane = logits, self
        self.lm = SimpleNamespace(eos=eos)
        self.policy = self
        self.betas = (beta,)
        self.states = (torch.zeros(len(logits), 1),)

    def values(self, states: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return states[0].double()  # (…, 1)


def given(logits: torch.Tensor, eos: int, beta: float, sampling: Sampling, candidates: Candidates) -> Steering:
    lane = Given(logits, eos, beta)
    return Steering(Terms([], [lane], candidates), lane, sampling)  # type: ignore[arg-type]


@pytest.mark.parametrize("outside", ["mean", "prefix", "drop"])
@pytest.mark.parametrize("beta", [2.0, -2.0])
def test_tokens_are_drawn_as_often_as_the_tilted_policy_says(outside: str, beta: float) -> None:
    """V = 8, k = 3, 40,000 rows. Values (1, .5, 1.5) with V(s) = 0: for `prefix` the share of what lies outside
    shrinks with β = 2 and grows with β = −2, so both origins of the outside token are drawn from."""
    n, values = 40_000, np.array([1.0, 0.5, 1.5])
    p = np.array([0.05, 0.3, 0.02, 0.08, 0.2, 0.15, 0.1, 0.1])
    logits = torch.tensor(p).log().float().expand(n, -1)
    steering = given(logits, 7, beta, Sampling(), Candidates(3, outside))
    draws = torch.from_numpy(np.random.default_rng(0).random((n, 3)))
    proposal = steering.propose(draws, torch.full((n, 1), beta, dtype=torch.float64))
    assert proposal.ids[0, :3].tolist() == [1, 4, 5]  # the most likely three
    hidden = torch.zeros(n, steering.width, 1)
    hidden[:, :3, 0] = torch.tensor(values)
    choice = steering.choose(proposal, {steering.scored[0]: (hidden,)})
    weight = p.copy() if outside != "drop" else np.zeros(8)
    weight[[1, 4, 5]] = p[[1, 4, 5]] * np.exp(beta * (values - (0 if outside == "prefix" else 1)))
    pi = weight / weight.sum()
    share = np.bincount(choice.token.numpy(), minlength=8) / n
    assert (np.abs(share - pi) <= 4 * np.sqrt(pi * (1 - pi) / n)).all()
    assert torch.equal(proposal.ids.gather(1, choice.index[:, None])[:, 0], choice.token)
    assert np.allclose(choice.logprob.exp().numpy(), pi[choice.token], atol=1e-6)


def test_a_forced_eos_that_truncation_removed_is_no_part_of_the_mean() -> None:
    """Top-k leaves tokens 1, 4, 5, 6 and 7; EOS = 2 takes the third place with base probability 0."""
    logits = torch.tensor([[0.05, 0.3, 0.02, 0.08, 0.2, 0.15, 0.1, 0.1]]).log()
    steering = given(logits, 2, 1.0, Sampling(top_k=5), Candidates(3, force_eos=True))
    proposal = steering.propose(torch.full((1, 3), 0.01, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    assert proposal.ids[0, :3].tolist() == [1, 4, 2]
    states = torch.tensor([[[1.0], [0.0], [90.0], [0.0]]])
    choice = steering.choose(proposal, {steering.scored[0]: (states,)})
    # c = ½: weights .3·e^.5, .2·e^−.5, outside .35
    assert choice.token.item() == 1
    z = 0.3 * math.exp(0.5) + 0.2 * math.exp(-0.5) + 0.35
    assert choice.logprob.exp().item() == pytest.approx(0.3 * math.exp(0.5) / z, abs=1e-6)


# numbers that are not finite


Prompts = list[tuple[str, list[int]]]


def test_a_guide_that_leaves_no_token_to_draw_is_named(policy: LoadedLM, prompts: Prompts, vocab_head: Path) -> None:
    lanes = Lanes(policy)
    terms = VocabValue(vocab_head).open(lanes, Sampling())
    term: Any = terms.dense[0]
    original = term.tilt
    term.tilt = lambda *given: torch.full_like(original(*given), -math.inf)
    with pytest.raises(FloatingPointError, match=r"log-normalisers of values of .* at step 0 of prompt 'p0'"):
        Engine(lanes, Draw(Sampling(), 0, 8), terms).run(prompts, 1)


@pytest.mark.parametrize("which", ["tuned", "values"])
def test_a_model_that_is_not_finite_is_named_with_its_step(
    policy: LoadedLM, prompts: Prompts, tuned_model: Path, vocab_head: Path, which: str
) -> None:
    guide = ImplicitValue(CausalLM(tuned_model)) if which == "tuned" else VocabValue(vocab_head)
    lanes = Lanes(policy)
    terms = guide.open(lanes, Sampling())
    term: Any = terms.dense[0]
    original, calls = term.tilt, iter([False, False, True])
    term.tilt = lambda *given: original(*given) * (math.nan if next(calls) else 1)
    with pytest.raises(
        FloatingPointError, match=rf"{'logits' if which == 'tuned' else 'values'} of .* at step 2 of prompt 'p0'"
    ):
        Engine(lanes, Draw(Sampling(), 0, 8), terms).run(prompts, 1)
