"""What an opened guide adds: by itself nothing."""

from types import SimpleNamespace
from typing import Any

import torch

from stages.engine.sampling import Sampling
from stages.engine.steering import Steering
from stages.engine.terms import Candidates, Terms


def test_terms_of_no_guide_are_empty_and_nobody_shares_them() -> None:
    one, other = Terms(), Terms()
    assert (one.dense, one.scalar, one.candidates) == ([], [], None)
    term: Any = object()
    one.dense.append(term)
    one.scalar.append(term)
    assert (other.dense, other.scalar) == ([], [])


def test_without_terms_the_base_draws() -> None:
    """π₀ = (.5, .3, .2): u = .1, .6, .9 are tokens 0, 1 and 2, with KL 0 and no strength to give."""
    policy = SimpleNamespace(logits=torch.tensor([[0.5, 0.3, 0.2]] * 3).log(), device=torch.device("cpu"))
    lanes: Any = SimpleNamespace(policy=policy)
    steering = Steering(Terms(), lanes, Sampling())
    assert (steering.betas, steering.width, steering.flops) == ((), 1, 0)
    uniforms = torch.tensor([[0.1, 0, 0], [0.6, 0, 0], [0.9, 0, 0]], dtype=torch.float64)
    choice = steering.propose(uniforms, torch.zeros(3, 0, dtype=torch.float64)).choice
    assert choice is not None
    assert choice.token.tolist() == [0, 1, 2]
    assert choice.kl.tolist() == choice.log_ratio.tolist() == choice.tilt.tolist() == [0, 0, 0]


def test_candidates_keep_the_rest_and_force_nothing_unless_it_is_said() -> None:
    candidates = Candidates(4)
    assert (candidates.outside, candidates.force_eos, candidates.before_temperature) == ("mean", False, False)
    assert candidates == Candidates(4, "mean")  # by which a sum of guides sees that they ask for the same ones
    assert candidates != Candidates(5)
    assert candidates != Candidates(4, "drop")
