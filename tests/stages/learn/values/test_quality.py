"""How well values foretell rewards, by arithmetic done by hand."""

import numpy as np
import pytest
import torch

from stages.learn.values.head import new_head
from stages.learn.values.quality import heldout_quality, values_of
from stages.learn.values.states import Features


def test_quality_by_hand():
    scores = torch.tensor([[1.0], [-1.0]])
    # Values that are 0 everywhere explain nothing and rank nothing.
    found = heldout_quality([np.zeros((3, 1)), np.zeros((2, 1))], scores, ["a"])
    assert found["explained_variance"] == 0
    assert np.isnan(found["rank_correlation_end"])
    # V = 0 everywhere for r = 1, 1 everywhere for r = −1. By state r − V = (1, 1, 1, −2, −2):
    # Var(r) = .96 and Var(r − V) = 2.16, so 1 − 2.25 = −1.25; the ranking is the wrong way round.
    found = heldout_quality([np.zeros((3, 1)), np.ones((2, 1))], scores, ["a"])
    assert found["explained_variance"] == pytest.approx(-1.25)
    assert found["rank_correlation_start"] == pytest.approx(-1)


def test_the_start_the_middle_and_the_end_are_states_of_their_own():
    # Three responses of 5, 3 and 1 states; the value is right at the last state, 0 at the first.
    rewards = [2.0, -1.0, 0.5]
    values = [np.array([[0.0], [9.0], [1.0], [9.0], [2.0]]), np.array([[0.0], [-0.5], [-1.0]]), np.array([[0.5]])]
    found = heldout_quality(values, torch.tensor(rewards)[:, None], ["a"])
    assert found["explained_variance_end"] == pytest.approx(1)
    assert found["rank_correlation_end"] == pytest.approx(1)
    # middle: states 2 of 5, 1 of 3, 0 of 1, so V = 1, −.5, .5 in the order of the rewards
    left = np.var([2.0 - 1.0, -1.0 + 0.5, 0.0])
    assert found["explained_variance_middle"] == pytest.approx(1 - left / np.var(rewards))
    assert found["rank_correlation_middle"] == pytest.approx(1)
    # start: V = 0, 0, .5
    assert found["explained_variance_start"] == pytest.approx(1 - np.var([2.0, -1.0, 0.0]) / np.var(rewards))


def test_several_rewards_have_their_name_before_each_figure():
    values = [np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])]
    found = heldout_quality(values, torch.tensor([[1.0, 3.0], [-1.0, 4.0]]), ["a", "b"])
    assert found["a_explained_variance"] == pytest.approx(1)
    assert found["b_explained_variance"] == pytest.approx(0)
    assert "explained_variance" not in found


@pytest.mark.parametrize(("kind", "states"), [("linear", 3), ("vocab", 2)])
def test_values_are_those_of_every_state_that_the_head_knows(kind: str, states: int):
    head = new_head(kind, size=1, vocabulary=2, rewards=["a"], width=1, layer=0, dtype="", target="")
    torch.nn.init.ones_(head.last.weight)
    features = [Features(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 1]), torch.zeros(3, 0))]
    (found,) = values_of(head, features)
    assert found.dtype == np.float64
    assert found[:, 0].tolist() == [1.0, 2.0, 4.0][:states]
