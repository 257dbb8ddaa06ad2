"""What ScalarValue draws, given values; and what it refuses, each with one line that names the key."""

import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages.decode.guides.scalar_value import ScalarValue
from stages.engine.causal_lm import CausalLM
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Sampling
from stages.engine.steering import Steering
from stages.engine.terms import Candidates, Terms
from stages.errors import BadInput


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


def refusal(guide: ScalarValue, policy: LoadedLM) -> BadInput:
    with pytest.raises(BadInput) as error:
        guide.open(Lanes(policy), Sampling())
    assert "\n" not in error.value.problem
    return error.value


def test_candidates_must_fit_the_vocabulary(policy: LoadedLM, head: Path) -> None:
    error = refusal(ScalarValue(head, k=60000), policy)
    assert error.field == "guide.k"
    assert error.problem.startswith(f"60000 candidates, but the vocabulary has {policy.vocabulary} tokens; ")
    ScalarValue(head, k=policy.vocabulary).open(Lanes(policy), Sampling())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"k": 0}, "guide.k"),
        ({"k": 1, "force_eos_candidate": True}, "guide.k"),
        ({"beta": math.nan}, "guide.beta"),
        ({"beta": math.inf}, "guide.beta"),
        ({"outside": "median"}, "guide.outside"),
        ({"reward": "gold"}, "guide.reward"),
    ],
)
def test_bad_settings_are_named(policy: LoadedLM, head: Path, settings: dict, field: str) -> None:
    assert refusal(ScalarValue(head, **settings), policy).field == field


def test_a_value_of_another_trunk_is_refused(policy: LoadedLM, make_head) -> None:
    error = refusal(ScalarValue(make_head(trunk="0" * 64)), policy)
    assert error.field == "guide.folder"
    assert "another trunk" in error.problem


def test_a_folder_without_a_value_model_is_refused(policy: LoadedLM, tmp_path: Path) -> None:
    assert refusal(ScalarValue(tmp_path), policy).field == "guide.folder"


def test_one_of_several_rewards_must_be_named(policy: LoadedLM, make_head) -> None:
    both = make_head(rewards=("proxy", "length"))
    assert refusal(ScalarValue(both), policy).field == "guide.reward"
    lanes = Lanes(policy)
    opened = ScalarValue(both, reward="length", beta=2.0).open(lanes, Sampling())
    assert opened.scalar[0].betas == (0, 2)


def test_a_policy_of_unknown_type_is_refused(tiny_model: Path) -> None:
    with pytest.raises(BadInput, match=r"policy\.dtype: 'float31'"):
        CausalLM(tiny_model, dtype="float31").load("cpu")


def test_a_policy_without_a_tokenizer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model / name, tmp_path / name)
    with pytest.raises(BadInput, match=r"policy\.folder: .*no tokenizer"):
        CausalLM(tmp_path).load("cpu")
