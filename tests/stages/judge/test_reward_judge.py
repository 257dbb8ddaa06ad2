"""The judge that needs no network."""

from pathlib import Path

import pytest

from stages.errors import BadInput
from stages.judge.reward_judge import PORTION, RewardJudge
from stages.judge.verdicts.pair_judge import Session
from stages.judge.verdicts.pairs import pairs_of
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


def test_rewards_that_are_nearly_the_same_are_a_tie(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, ["aaaa", "aaaa", "a"], ["aaa", "a", "aaaa"])  # lengths differ by 1, 3, −3
    verdicts, metrics = run_stage(payloads, {"main": RewardJudge(reward=Length(), tie=1.0)})
    assert [v.preference for v in verdicts] == [1.5, 2.0, 1.0]
    assert [v.answer for v in verdicts] == ["4 against 3", "4 against 1", "1 against 4"]
    assert (metrics["requests/asked"], metrics["requests/spent"]) == (0, 0)


@pytest.mark.parametrize(
    ("judge", "field"),
    [
        (RewardJudge(reward=object()), "judges.main.reward"),
        (RewardJudge(reward=Length(), tie=-1.0), "judges.main.tie"),
        (RewardJudge(reward=Length(), tie=float("inf")), "judges.main.tie"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(tmp_path: Path, run_stage, judge: RewardJudge, field: str) -> None:
    with pytest.raises(BadInput) as refused:
        run_stage(write_methods(tmp_path, ["a"], ["b"]), {"main": judge})
    assert refused.value.field == field


def test_many_responses_are_scored_in_portions_and_each_is_reported(tmp_path: Path) -> None:
    payloads = write_methods(tmp_path, ["aa"] * (PORTION + 1), ["a"] * (PORTION + 1))
    pairs = pairs_of(payloads["generations"], payloads["reference_generations"], payloads["prompts"], [])
    seen: list[tuple[int, int]] = []
    session = Session(tmp_path, progress=lambda done, total, note: seen.append((done, total)))
    verdicts = RewardJudge(reward=Length()).decide(pairs, "both", session)
    assert {v.preference for v in verdicts} == {2.0}
    total = 2 * (PORTION + 1)
    assert seen == [(PORTION, total), (PORTION + 1, total), (2 * PORTION + 1, total), (total, total)]
