"""PPO's loop: on-policy draws, figures of an iteration, its early end, and what is no result."""

from pathlib import Path

import pytest
import torch

from stages.engine.sampling import Sampling
from stages.learn.policies import ppo_learner
from stages.learn.policies.experience import Experience
from stages.learn.policies.ppo_learner import Learner


def test_old_log_probabilities_are_those_of_the_draw_and_the_first_ones_are_the_reference_s(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, monkeypatch: pytest.MonkeyPatch
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
    train_ppo(tmp_path / "ppo", prompts, tiny_model, letters(), iterations=2)
    for responses, experience in seen:  # temperature included, adapters of that moment included
        assert experience.logprobs.sum(1).tolist() == pytest.approx([r.logprob for r in responses], abs=2e-4)
    first, second = (experience for _, experience in seen)
    assert torch.allclose(first.logprobs, first.reference, atol=1e-5)
    assert not torch.allclose(second.logprobs, second.reference, atol=1e-2)
    # z-scored by π₀'s own responses
    assert float(first.scores.mean()) == pytest.approx(0, abs=1e-5)
    assert float(first.scores.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_what_is_not_finite_is_no_result(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, monkeypatch: pytest.MonkeyPatch
):
    """In the last iteration: no later draw would meet it."""
    fields = {"iterations": 1, "batch_size": 8, "epochs": 1, "max_kl": 0}
    with pytest.raises(FloatingPointError, match=r"^policy_loss is (inf|nan) in iteration 1; set a smaller learning"):
        train_ppo(tmp_path / "loss", prompts, tiny_model, letters(), learning_rate=1e37, minibatch=4, **fields)
    plain = ppo_learner.policy_loss  # the gradient of a square root at 0 is not finite, the loss is what it was
    monkeypatch.setattr(ppo_learner, "policy_loss", lambda new, *others: plain(new, *others) + (new * 0).sqrt())
    with pytest.raises(FloatingPointError, match=r"^PPO: weight .*lora_.* is not finite after step 1; "):
        train_ppo(tmp_path / "weight", prompts, tiny_model, letters(), **fields)
    assert not list(tmp_path.glob("*/model.safetensors"))


def test_an_iteration_ends_where_the_policy_has_moved_enough(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, monkeypatch: pytest.MonkeyPatch
):
    epochs: list[float] = []
    plain = ppo_learner.Learner.learn

    def watched(self, done: int = 0):
        for figures in plain(self, done):
            epochs.append(figures["epochs"])
            yield figures

    monkeypatch.setattr(ppo_learner.Learner, "learn", watched)
    for name, most in (("a", 1e-9), ("b", 0.0)):
        train_ppo(tmp_path / name, prompts, tiny_model, letters(), iterations=1, epochs=3, max_kl=most)
    assert epochs == [1.0, 3.0]


def test_the_clip_fraction_is_the_share_of_tokens_whose_ratio_left_the_interval(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, figures, monkeypatch: pytest.MonkeyPatch
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
    train_ppo(tmp_path, prompts, tiny_model, letters(), runtime, iterations=2, clip=0.05, max_kl=0)
    shares = [float(torch.cat(each).float().mean()) for each in seen]
    assert 0 < shares[0] < 1
    assert figures[1]["clip_fraction"] == pytest.approx(sum(shares) / 2)
    _, columns, rows = tables[0]
    assert [row[columns.index("clip_fraction")] for row in rows] == pytest.approx(shares)
    assert not seen[0][0].any()  # the first minibatch of an iteration meets the policy that drew


def test_no_token_is_clipped_where_the_policy_does_not_move(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, figures
):
    train_ppo(tmp_path, prompts, tiny_model, letters(), figures[0], iterations=2, learning_rate=1e-12)
    assert figures[1]["clip_fraction"] == 0


def test_figures_of_the_whole_training_by_hand(prompts: Path, tiny_model: Path, letters, ppo_stage):
    learner = Learner(ppo_stage(prompts, tiny_model, letters(), batch_size=16))
    learner.mean, learner.sd = 0.5, 0.25
    learner.spent["train_flops"] = 8.0
    # nine iterations: the last eighth is the last one alone
    history = [{"reward": float(i), "kl": 2.0 * i, "beta": 0.1 * i, "clip_fraction": 0.01 * i} for i in range(9)]
    found = learner.metrics(history)
    assert (found["iterations"], found["responses"]) == (9, 9 * 16)
    assert (found["reward_first"], found["reward_last"], found["kl_last"]) == (0, 8, 16)
    assert (found["beta_last"], found["clip_fraction"]) == (pytest.approx(0.8), pytest.approx(0.04))
    assert (found["reward_mean"], found["reward_sd"], found["train_flops"]) == (0.5, 0.25, 8)


def test_prompts_come_in_turn_and_a_prompt_that_comes_twice_is_drawn_twice(
    prompts: Path, tiny_model: Path, letters, ppo_stage
):
    """Twelve prompts, sixteen responses: the engine's draws go by the name, which holds the place in the batch."""
    learner = Learner(ppo_stage(prompts, tiny_model, letters(), sampling=Sampling(temperature=1.0, max_new_tokens=8)))
    drawn = learner._draw(0, [0, 0, 1])
    assert drawn[0].prompt == drawn[1].prompt != drawn[2].prompt
    assert drawn[0].response != drawn[1].response
    assert [r.response for r in learner._draw(0, [0, 0, 1])] == [r.response for r in drawn]
    assert [r.response for r in learner._draw(1, [0, 0, 1])] != [r.response for r in drawn]
