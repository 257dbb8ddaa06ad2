"""The judge that needs no network."""

from pathlib import Path

from stages.judge.reward_judge import RewardJudge
from tests.stages.judge.judging import Length, Warm, write_methods


def test_the_reward_decides_offline_and_the_null_model_loses(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, [" a superb wonder"] * 12, [" a warm film"] * 12)
    verdicts, metrics = run_stage(payloads, {"main": RewardJudge(reward=Warm())}, canary=12)
    assert {v.order for v in verdicts} == {"either"}
    assert metrics["win_rate"] == 100
    assert metrics["canary/win_rate"] == 0
    assert metrics["canary/lost"] == 1
    assert metrics["cost"] == 0
    assert "swap_consistency" not in metrics


def test_a_reward_that_prefers_the_null_model_is_called_out(tmp_path: Path, run_stage, caplog) -> None:
    payloads = write_methods(tmp_path, ["abc"] * 12, ["ab"] * 12)
    run_stage(payloads, {"main": RewardJudge(reward=Length())}, canary=12)
    assert "null model that answers everything alike wins 100 % of 12 prompts" in caplog.text
