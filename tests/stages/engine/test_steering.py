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
from stages.engine.distribution import Distribution, NotFinite
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


# tilts of all tokens


class Lifted:
    """A dense term that lifts one token: t = β·lift for token 0."""

    name, flops = "lifted", 7.0

    def __init__(self, beta: float, lift: float) -> None:
        self.betas, self.lift = (beta,), lift

    def tilt(self, base: Distribution, sampling: Sampling, betas: torch.Tensor) -> torch.Tensor:
        return betas.float() * torch.tensor([[self.lift, *[0.0] * (base.logits.shape[1] - 1)]])


def test_a_dense_tilt_by_hand_with_a_strength_of_each_row() -> None:
    """π₀ = (½, ¼, ¼), t = (log 2, 0, 0): weights 1, ¼, ¼, Z = 3/2, π = (⅔, ⅙, ⅙), KL = ⅔·log 2 − log 3/2 = .0566.
    The second row's strength is 0."""
    lane: Any = Given(torch.tensor([[0.5, 0.25, 0.25]] * 2).log(), 2, 1.0)
    term: Any = Lifted(1.0, math.log(2))
    steering = Steering(Terms([term]), lane, Sampling())
    uniforms = torch.tensor([[0.6, 0, 0], [0.6, 0, 0]], dtype=torch.float64)
    choice = steering.propose(uniforms, torch.tensor([[1.0], [0.0]], dtype=torch.float64)).choice
    assert choice is not None
    assert choice.token.tolist() == [0, 1]  # .6 is below ⅔, and between ½ and ¾
    assert choice.logprob.exp().tolist() == pytest.approx([2 / 3, 1 / 4], abs=1e-6)
    assert choice.base_logprob.exp().tolist() == pytest.approx([1 / 2, 1 / 4], abs=1e-6)
    assert choice.kl.tolist() == pytest.approx([2 / 3 * math.log(2) - math.log(1.5), 0], abs=1e-6)
    assert choice.tilt.tolist() == pytest.approx([math.log(2), 0], abs=1e-6)
    assert choice.log_ratio.tolist() == pytest.approx([math.log(4 / 3), 0], abs=1e-6)


@pytest.mark.parametrize(("outside", "width", "values"), [("mean", 5, 4), ("prefix", 5, 5), ("drop", 4, 4)])
def test_what_a_step_forwards_and_costs(outside: str, width: int, values: int) -> None:
    """k = 4 and one from outside, which `drop` never draws; `prefix` reads a value more. 7 FLOPs a dense tilt, 3 a
    value. Strengths of dense terms come first."""
    lane: Any = Given(torch.zeros(1, 8), 7, 0.5)
    lane.flops = 3.0
    dense: Any = Lifted(2.0, 0.0)
    steering = Steering(Terms([dense], [lane], Candidates(4, outside)), lane, Sampling())
    assert (steering.width, steering.flops) == (width, values * 3.0 + 7.0)
    assert steering.betas == (2.0, 0.5)


# numbers that are not finite


def test_a_value_that_is_not_finite_is_named_with_its_row() -> None:
    steering = given(torch.zeros(3, 8), 7, 1.0, Sampling(), Candidates(2))
    proposal = steering.propose(torch.full((3, 3), 0.5, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64))
    states = torch.zeros(3, 3, 1)
    states[1, 0] = math.nan
    with pytest.raises(NotFinite, match=r"^values of given are not finite$") as error:
        steering.choose(proposal, {steering.scored[0]: (states,)})
    assert error.value.row == 1
    states[1, 0], states[2, 2] = 0.0, math.nan  # of the token from outside no value is read
    assert steering.choose(proposal, {steering.scored[0]: (states,)}).kl.tolist() == pytest.approx([0, 0, 0], abs=1e-12)


@pytest.mark.parametrize("lift", [math.nan, math.inf])
def test_a_tilt_that_is_not_finite_is_named_with_its_row(lift: float) -> None:
    lane: Any = Given(torch.zeros(2, 4), 3, 1.0)
    term: Any = Lifted(1.0, lift)
    steering = Steering(Terms([term]), lane, Sampling())
    with pytest.raises(NotFinite, match=r"^lifted are not finite$") as error:
        steering.propose(torch.full((2, 3), 0.5, dtype=torch.float64), torch.tensor([[1.0], [1.0]]))
    assert error.value.row == 0


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
