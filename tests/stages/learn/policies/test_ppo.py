"""Proximal Policy Optimisation: what it learns, the tie to π₀, what it saves, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.engine.language_model import load_model
from stages.engine.sampling import Sampling
from stages.errors import BadInput


def test_earns_more_and_saves_an_ordinary_folder(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, figures
):
    out = tmp_path / "ppo"
    train_ppo(
        out, prompts, tiny_model, letters(), figures[0], iterations=5, beta=0.01, batch_size=48, epochs=3, max_kl=0
    )
    figure = figures[1]
    assert figure["reward_last"] > figure["reward_first"] + 0.5 * figure["reward_sd"]
    assert figure["responses"] == 5 * 48
    assert figure["train_flops"] > figure["rollout_flops"] > 0
    assert load_model(out, dtype="float32", device="cpu").config.num_hidden_layers == 3
    cost = json.loads((out / "training.json").read_text())
    assert all(cost[name] == figure[name] > 0 for name in ("train_flops", "train_tokens", "rollout_flops"))
    # Every response answers a prompt of its own: all its tokens but the last were forwarded, and the prompt's.
    assert cost["rollout_tokens"] == figure["rollout_tokens"] > figure["responses"]
    card = (out / "README.md").read_text()
    assert "reward: Letters(constant=False, broken=False)" in card
    assert str(tmp_path) not in card


def test_a_stronger_tie_stays_closer_to_the_base_policy(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, figures
):
    kl = []
    for beta in (0.0, 2.0):
        train_ppo(tmp_path / str(beta), prompts, tiny_model, letters(), figures[0], beta=beta, iterations=5)
        kl.append(figures[1]["kl_last"])
    assert kl[1] < 0.5 * kl[0]


def test_an_adaptive_coefficient_rises_while_kl_is_above_its_target(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, figures
):
    train_ppo(tmp_path, prompts, tiny_model, letters(), figures[0], beta=0.1, target_kl=1e-6, iterations=4)
    # the first iteration's KL is 0 (e = −.2), the three after it are far above: .1·.98·1.02³
    assert figures[1]["beta_last"] == pytest.approx(0.1 * 0.98 * 1.02**2)  # as it was in the last iteration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampling": Sampling(top_p=0.9)}, r"^sampling: PPO draws with temperature alone"),
        ({"iterations": 0}, r"^iterations: 0 is not positive"),
        ({"beta": -1.0}, r"^beta: -1.0 is not a number of 0 or more"),
        ({"beta": np.nan}, r"^beta: nan"),
        ({"lam": 2.0}, r"^lam: 2.0 is not between"),
        ({"part": "nowhere"}, r"^part: no prompt is in part 'nowhere'; there are train"),
        ({"top_layers": 7}, r"^top_layers: 7 is not 0"),
    ],
)
def test_bad_settings_are_one_line(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, fields: dict, message: str
):
    with pytest.raises(BadInput, match=message):
        train_ppo(tmp_path, prompts, tiny_model, letters(), **fields)


def test_a_constant_reward_and_a_nan_are_refused(tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo):
    with pytest.raises(BadInput, match=r"^reward: gave 1.0 for all 16 responses of π₀; nothing to learn"):
        train_ppo(tmp_path, prompts, tiny_model, letters(constant=True))
    with pytest.raises(BadInput, match=r"^reward: Letters gave nan for prompt 'p\d+' and response"):
        train_ppo(tmp_path, prompts, tiny_model, letters(broken=True))
