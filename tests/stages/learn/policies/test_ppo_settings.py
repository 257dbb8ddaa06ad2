"""What PPO refuses before anything is loaded."""

from pathlib import Path

import numpy as np
import pytest

from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.loop.trainer import Trainer
from stages.learn.policies.ppo_settings import PpoSettings


class Zero:
    def score(self, prompts, responses) -> np.ndarray:
        return np.zeros(len(responses))


def settings(**fields) -> PpoSettings:
    return PpoSettings(**{"prompts": Path(), "base": Path(), "reward": Zero(), "sampling": Sampling()} | fields)


def test_settings_that_can_be_used_are_not_refused():
    settings(max_kl=0.0, beta=0.0, target_kl=6.0, lam=1.0).check()


@pytest.mark.parametrize("truncation", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"greedy": True}])
def test_a_truncated_draw_has_no_ratio(truncation: dict):
    with pytest.raises(BadInput, match=r"^sampling: PPO draws with temperature alone; set top_p=1, top_k=0"):
        settings(sampling=Sampling(**truncation)).check()


@pytest.mark.parametrize("name", ["iterations", "batch_size", "minibatch", "epochs", "clip", "value_clip"])
def test_what_has_to_be_positive_is_named(name: str):
    with pytest.raises(BadInput, match=rf"^{name}: 0 is not positive"):
        settings(**{name: 0}).check()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": -1.0}, r"^learning_rate: -1.0 is not positive"),
        ({"max_kl": np.inf}, r"^max_kl: inf is not a number of 0 or more"),
        ({"target_kl": -2.0}, r"^target_kl: -2.0 is not a number of 0 or more"),
        ({"lam": -0.1}, r"^lam: -0.1 is not between 0 and 1"),
        ({"trainer": Trainer(warmup=2.0)}, r"^trainer\.warmup: 2.0"),
        ({"sampling": Sampling(temperature=-1.0)}, r"^sampling\.temperature: "),
    ],
)
def test_other_values_that_cannot_be_used_are_named(fields: dict, message: str):
    with pytest.raises(BadInput, match=message):
        settings(**fields).check()
