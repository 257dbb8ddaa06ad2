"""A PPO that died goes on where it was."""

from pathlib import Path

import pytest
import torch

from stages.errors import BadInput
from stages.learn.loop.trainer import TrainingRuntime
from stages.learn.policies import ppo_learner
from stages.learn.policies.ppo_checkpoint import restore, save
from stages.learn.policies.ppo_learner import Learner


def test_a_training_that_died_goes_on_to_the_same_weights(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, train_ppo, monkeypatch: pytest.MonkeyPatch
):
    whole = train_ppo(tmp_path / "whole", prompts, tiny_model, letters(), TrainingRuntime())
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    plain = ppo_learner.Learner._draw

    def fails(self, iteration, chosen):
        if iteration == 2:
            raise RuntimeError("the machine fails")
        return plain(self, iteration, chosen)

    monkeypatch.setattr(ppo_learner.Learner, "_draw", fails)
    with pytest.raises(RuntimeError, match="the machine fails"):
        train_ppo(tmp_path / "x", prompts, tiny_model, letters(), TrainingRuntime(checkpoints=kept, checkpoint_every=1))
    monkeypatch.setattr(ppo_learner.Learner, "_draw", plain)
    resumed = train_ppo(tmp_path / "resumed", prompts, tiny_model, letters(), TrainingRuntime(checkpoints=kept))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    with pytest.raises(BadInput, match=r"^runtime\.checkpoints: .*is of another architecture: "):
        train_ppo(tmp_path / "y", prompts, tiny_model, letters(), TrainingRuntime(checkpoints=kept), lora_rank=2)


@pytest.mark.parametrize(("every", "done", "kept"), [(1, 3, True), (2, 3, False), (2, 4, True), (0, 4, False)])
def test_a_checkpoint_comes_after_every_so_many_iterations(
    tmp_path: Path, prompts: Path, tiny_model: Path, letters, ppo_stage, every: int, done: int, kept: bool
):
    runtime = TrainingRuntime(checkpoints=tmp_path, checkpoint_every=every)
    learner = Learner(ppo_stage(prompts, tiny_model, letters(), runtime))
    save(learner, [{"reward": 1.0}] * done)
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".ckpt", ".part")] == ["ppo.ckpt"] * kept


def test_all_that_an_iteration_changes_is_kept(tmp_path: Path, prompts: Path, tiny_model: Path, letters, ppo_stage):
    runtime = TrainingRuntime(checkpoints=tmp_path, checkpoint_every=1)
    first, again = (Learner(ppo_stage(prompts, tiny_model, letters(), runtime)) for _ in range(2))
    assert restore(again) == []  # nothing is there yet
    with torch.no_grad():
        for parameter in first.actor.parameters():
            if parameter.requires_grad:
                parameter.fill_(0.25)
        first.actor.centre.fill_(2.0)
        first.actor.spread.fill_(3.0)
    first.coefficient.beta, first.mean, first.sd, first.spent["train_flops"] = 0.7, -1.0, 4.0, 5.0
    save(first, [{"reward": 1.0}, {"reward": 2.0}])
    assert restore(again) == [{"reward": 1.0}, {"reward": 2.0}]
    assert {float(p.min()) for p in again.actor.parameters() if p.requires_grad} == {0.25}
    assert (float(again.actor.centre[0]), float(again.actor.spread[0])) == (2.0, 3.0)
    assert (again.coefficient.beta, again.mean, again.sd, again.spent["train_flops"]) == (0.7, -1.0, 4.0, 5.0)
    again.machines.resume = False
    assert restore(again) == []
