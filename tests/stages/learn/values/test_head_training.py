"""The loss of a batch: every state of every response, padding and all else left out."""

from typing import Any

import pytest
import torch

from stages.errors import BadInput
from stages.learn.values.head import new_head
from stages.learn.values.head_training import HeadTraining
from stages.learn.values.states import Features, KeptStates
from stages.learn.values.targets import Bellman, Soft, TdLambda

# two responses, of 2 tokens and of 1, in states of size 1
FEATURES = [
    Features(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 1]), torch.zeros(3, 0)),
    Features(torch.tensor([[3.0], [5.0]]), torch.tensor([1]), torch.zeros(2, 0)),
]
REWARDS = torch.tensor([[3.0], [1.0]])
COMMON: dict[str, Any] = {"size": 1, "vocabulary": 2, "width": 1, "layer": 0, "dtype": "", "target": ""}


def training(kind: str, target: Any, rewards: torch.Tensor = REWARDS) -> HeadTraining:
    names = [str(i) for i in range(rewards.shape[1])]
    head = new_head(kind, rewards=names, **COMMON)
    torch.nn.init.ones_(head.last.weight)  # V(s) = h, or Q(s, a) = h for every token
    states = KeptStates(FEATURES)
    return HeadTraining(head, states, FEATURES, rewards, target, learning_rate=1.0, weight_decay=0.0)


def test_a_scalar_head_learns_from_every_state_the_last_one_too():
    # Monte Carlo: every state is asked for r. ½·((1−3)² + (2−3)² + (4−3)²) = 3 and ½·((3−1)² + (5−1)²) = 10
    assert training("linear", TdLambda(1.0)).loss([0]).item() == pytest.approx(3.0)
    assert training("linear", TdLambda(1.0)).loss([1]).item() == pytest.approx(10.0)
    assert training("linear", TdLambda(1.0)).loss([1, 0]).item() == pytest.approx(13.0)  # padding adds nothing


def test_a_head_over_the_vocabulary_has_no_first_state():
    # Q of the tokens drawn in states 1, 2 and 3: ½·((1−3)² + (2−3)²) = 2.5 and ½·(3−1)² = 2
    assert training("vocab", TdLambda(1.0)).loss([0, 1]).item() == pytest.approx(4.5)


def test_a_batch_is_weighed_by_its_states_times_rewards():
    assert training("linear", Soft(1.0)).terms == [3, 2]
    assert training("vocab", Soft(1.0)).terms == [2, 1]
    assert training("linear", Soft(1.0), torch.zeros(2, 3)).terms == [9, 6]


def test_each_reward_has_a_loss_of_its_own():
    two = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    # the second reward, of the first response: ½·(0 + 1² + 3²) = 5, beside 3 for the first
    assert training("linear", TdLambda(1.0), two).loss([0]).item() == pytest.approx(8.0)


def test_a_target_that_the_head_cannot_learn_is_refused_at_once():
    with pytest.raises(BadInput, match=r"^target: .*needs head=vocab"):
        training("linear", Bellman(lambda final: final))


def test_the_parameters_of_states_that_are_a_module_are_trained():
    class Shifted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(1))

        def of(self, indices: Any, device: torch.device) -> torch.Tensor:
            return KeptStates(FEATURES).of(indices, device) + self.shift

        def settle(self) -> bool:
            return True

    head = new_head("linear", rewards=["a"], **COMMON)
    torch.nn.init.ones_(head.last.weight)
    rates = {"learning_rate": 1.0, "weight_decay": 0.0}
    made = HeadTraining(head, Shifted(), FEATURES, REWARDS, TdLambda(1.0), **rates)
    made.loss([0]).backward()
    gradients = {name: p.grad for name, p in made.named_parameters()}
    assert gradients["states.shift"] is not None
    assert gradients["states.shift"].item() == pytest.approx(-2 - 1 + 1)  # Σ (V − r)
