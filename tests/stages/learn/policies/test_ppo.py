"""Proximal LoadedLM Optimisation: on-policy draws, what it learns, the tie to π₀, what it saves, what it refuses."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages import records
from stages.engine.language_model import load_model
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.loop.trainer import TrainingRuntime
from stages.learn.policies import ppo_learner
from stages.learn.policies.experience import Experience
from stages.learn.policies.ppo import Ppo
from stages.records import Prompt
from stages.runtime import Runtime

REWARDS = """
from dataclasses import dataclass
import numpy as np

@dataclass
class Letters:
    constant: bool = False
    broken: bool = False

    def score(self, prompts, responses):
        if self.constant:
            return np.ones(len(responses))
        found = np.array([sum(c.islower() for c in r) / max(1, len(r)) for r in responses])
        return np.where(np.arange(len(found)) == 3, np.nan, found) if self.broken else found
"""


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Reward: share of lower-case letters, in a module of its own as a user's is: other processes must find it."""
    (tmp_path / "letters.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("letters").Letters
    del sys.modules["letters"]


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    made = [Prompt(id=f"p{i}", part="train", text="the film " * (1 + i % 3)) for i in range(12)]
    records.write(folder / "prompts.parquet", Prompt, made)
    return folder


def stage(prompts: Path, base: Path, reward, runtime: Runtime | None = None, **fields) -> Ppo:
    settings = {
        "iterations": 3,
        "batch_size": 16,
        "minibatch": 8,
        "learning_rate": 1e-2,
        "dtype": "float32",
        "lora_rank": 4,
        "value_width": 16,
        "sampling": Sampling(temperature=0.2, max_new_tokens=4),
    }
    return Ppo(prompts=prompts, base=base, reward=reward, runtime=runtime or Runtime(rows=9), **settings | fields)


def run(out: Path, *arguments, **fields) -> dict[str, torch.Tensor]:
    out.mkdir(parents=True, exist_ok=True)
    stage(*arguments, **fields).run(out)
    return load_file(out / "model.safetensors")


def test_earns_more_and_saves_an_ordinary_folder(tmp_path: Path, prompts: Path, tiny_model: Path, letters, figures):
    out = tmp_path / "ppo"
    run(out, prompts, tiny_model, letters(), figures[0], iterations=5, beta=0.01, batch_size=48, epochs=3, max_kl=0)
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


def test_old_log_probabilities_are_those_of_the_draw_and_the_first_ones_are_the_reference_s(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[list, Experience]] = []
    drawn: list = []
    plain_run, plain = ppo_learner.Engine.run, ppo_learner.Learner._experience

    def watched_run(self, *arguments):
        drawn.append(plain_run(self, *arguments))
        return drawn[-1]

    def watched(self, rewarded):
        seen.append((drawn[-1], plain(self, rewarded)))
        return seen[-1][1]

    monkeypatch.setattr(ppo_learner.Engine, "run", watched_run)
    monkeypatch.setattr(ppo_learner.Learner, "_experience", watched)
    run(tmp_path / "ppo", prompts, tiny_model, letters(), iterations=2)
    for responses, experience in seen:  # temperature included, adapters of that moment included
        assert experience.logprobs.sum(1).tolist() == pytest.approx([r.logprob for r in responses], abs=2e-4)
    first, second = (experience for _, experience in seen)
    assert torch.allclose(first.logprobs, first.reference, atol=1e-5)
    assert not torch.allclose(second.logprobs, second.reference, atol=1e-2)
    # z-scored by π₀'s own responses
    assert float(first.scores.mean()) == pytest.approx(0, abs=1e-5)
    assert float(first.scores.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_what_is_not_finite_is_no_result(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, monkeypatch: pytest.MonkeyPatch
):
    """In the last iteration: no later draw would meet it."""
    fields = {"iterations": 1, "batch_size": 8, "epochs": 1, "max_kl": 0}
    with pytest.raises(FloatingPointError, match=r"^policy_loss is (inf|nan) in iteration 1; set a smaller learning"):
        run(tmp_path / "loss", prompts, tiny_model, letters(), learning_rate=1e37, minibatch=4, **fields)
    plain = ppo_learner.policy_loss  # the gradient of a square root at 0 is not finite, the loss is what it was
    monkeypatch.setattr(ppo_learner, "policy_loss", lambda new, *others: plain(new, *others) + (new * 0).sqrt())
    with pytest.raises(FloatingPointError, match=r"^PPO: weight .*lora_.* is not finite after step 1; "):
        run(tmp_path / "weight", prompts, tiny_model, letters(), **fields)
    assert not list(tmp_path.glob("*/model.safetensors"))


def test_a_stronger_tie_stays_closer_to_the_base_policy(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, figures
):
    kl = []
    for beta in (0.0, 2.0):
        run(tmp_path / str(beta), prompts, tiny_model, letters(), figures[0], beta=beta, iterations=5)
        kl.append(figures[1]["kl_last"])
    assert kl[1] < 0.5 * kl[0]


def test_an_adaptive_coefficient_rises_while_kl_is_above_its_target(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, figures
):
    run(tmp_path, prompts, tiny_model, letters(), figures[0], beta=0.1, target_kl=1e-6, iterations=4)
    # the first iteration's KL is 0 (e = −.2), the three after it are far above: .1·.98·1.02³
    assert figures[1]["beta_last"] == pytest.approx(0.1 * 0.98 * 1.02**2)  # as it was in the last iteration


def test_an_iteration_ends_where_the_policy_has_moved_enough(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, monkeypatch: pytest.MonkeyPatch
):
    epochs: list[float] = []
    plain = ppo_learner.Learner.learn

    def watched(self, done: int = 0):
        for figures in plain(self, done):
            epochs.append(figures["epochs"])
            yield figures

    monkeypatch.setattr(ppo_learner.Learner, "learn", watched)
    for name, most in (("a", 1e-9), ("b", 0.0)):
        run(tmp_path / name, prompts, tiny_model, letters(), iterations=1, epochs=3, max_kl=most)
    assert epochs == [1.0, 3.0]


def test_the_clip_fraction_is_the_share_of_tokens_whose_ratio_left_the_interval(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, figures, monkeypatch: pytest.MonkeyPatch
):
    """Of all epochs of an iteration, then the mean over iterations."""
    seen: list[list[torch.Tensor]] = [[], []]
    plain, drawn = ppo_learner.policy_loss, ppo_learner.Learner._draw
    iteration = 0

    def watched_draw(self, now: int, chosen):
        nonlocal iteration
        iteration = now
        return drawn(self, now, chosen)

    def watched(new, old, advantages, clip):
        ratio = (new - old).exp().detach()
        seen[iteration].append((ratio < 0.95) | (ratio > 1.05))
        return plain(new, old, advantages, clip)

    monkeypatch.setattr(ppo_learner.Learner, "_draw", watched_draw)
    monkeypatch.setattr(ppo_learner, "policy_loss", watched)
    tables: list[tuple] = []
    runtime = figures[0]
    runtime.table = lambda *table: tables.append(table)
    run(tmp_path, prompts, tiny_model, letters(), runtime, iterations=2, clip=0.05, max_kl=0)
    shares = [float(torch.cat(each).float().mean()) for each in seen]
    assert 0 < shares[0] < 1
    assert figures[1]["clip_fraction"] == pytest.approx(sum(shares) / 2)
    _, columns, rows = tables[0]
    assert [row[columns.index("clip_fraction")] for row in rows] == pytest.approx(shares)
    assert not seen[0][0].any()  # the first minibatch of an iteration meets the policy that drew


def test_no_token_is_clipped_where_the_policy_does_not_move(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, figures
):
    run(tmp_path, prompts, tiny_model, letters(), figures[0], iterations=2, learning_rate=1e-12)
    assert figures[1]["clip_fraction"] == 0


def test_a_training_that_died_goes_on_to_the_same_weights(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, monkeypatch: pytest.MonkeyPatch
):
    whole = run(tmp_path / "whole", prompts, tiny_model, letters(), TrainingRuntime())
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    plain = ppo_learner.Learner._draw

    def fails(self, iteration, chosen):
        if iteration == 2:
            raise RuntimeError("the machine fails")
        return plain(self, iteration, chosen)

    monkeypatch.setattr(ppo_learner.Learner, "_draw", fails)
    with pytest.raises(RuntimeError, match="the machine fails"):
        run(tmp_path / "x", prompts, tiny_model, letters(), TrainingRuntime(checkpoints=kept, checkpoint_every=1))
    monkeypatch.setattr(ppo_learner.Learner, "_draw", plain)
    resumed = run(tmp_path / "resumed", prompts, tiny_model, letters(), TrainingRuntime(checkpoints=kept))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    with pytest.raises(BadInput, match=r"^runtime\.checkpoints: .*is of another architecture: "):
        run(tmp_path / "y", prompts, tiny_model, letters(), TrainingRuntime(checkpoints=kept), lora_rank=2)


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
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, fields: dict, message: str
):
    with pytest.raises(BadInput, match=message):
        run(tmp_path, prompts, tiny_model, letters(), **fields)


def test_a_constant_reward_and_a_nan_are_refused(tmp_path: Path, prompts: Path, tiny_model: Path, letters):
    with pytest.raises(BadInput, match=r"^reward: gave 1.0 for all 16 responses of π₀; nothing to learn"):
        run(tmp_path, prompts, tiny_model, letters(constant=True))
    with pytest.raises(BadInput, match=r"^reward: Letters gave nan for prompt 'p\d+' and response"):
        run(tmp_path, prompts, tiny_model, letters(broken=True))
