"""Labelled rollouts as learning stages read them: what they get, and what cannot be learnt from."""

from pathlib import Path

import numpy as np
import pytest

from stages import records
from stages.errors import BadInput
from stages.learn.labels import read_labels, reward_columns, split_prompts, spread
from stages.records import Labelled, Prompt


def rollout(i: int, reward: float | None, **changes) -> Labelled:
    fields = {"prompt_id": f"p{i % 4}", "sample": i // 4, "token_ids": [270 + i, 2], "text": str(i), "logprob": -1.0}
    fields |= {"finished": True, "part": "train", "rewards": {"proxy": reward, "other": 2.0 * i}}
    return Labelled(**fields | changes)


def written(folder: Path, rollouts: list[Labelled], prompts: int = 4) -> Path:
    asked = [Prompt(id=f"p{i}", part="train", text="a") for i in range(prompts)]
    records.write(folder / "prompts.parquet", Prompt, asked)
    records.write(folder / "labels.parquet", Labelled, rollouts)
    return folder


def test_rollouts_come_with_the_prompts_that_they_answer(tmp_path: Path):
    rollouts = [rollout(i, float(i)) for i in range(6)]
    found, prompts = read_labels(written(tmp_path, rollouts), tmp_path, allow_truncated=False)
    assert found == rollouts
    assert sorted(prompts) == ["p0", "p1", "p2", "p3"]


@pytest.mark.parametrize(
    ("rollouts", "message"),
    [
        ([], r"^labels: there are no labelled rollouts to learn from"),
        ([rollout(0, 1.0, prompt_id="p9")], r"^prompts: prompt 'p9' has rollouts but is not among the prompts"),
        ([rollout(0, 1.0), rollout(1, 1.0, token_ids=[])], r"^labels: sample 0 of prompt 'p1' has no tokens"),
        ([rollout(0, 1.0, finished=False)], r"^labels: all 1 rollouts were cut at the token limit.*allow_truncated"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(tmp_path: Path, rollouts: list[Labelled], message: str):
    with pytest.raises(BadInput, match=message):
        read_labels(written(tmp_path, rollouts), tmp_path, allow_truncated=False)


def test_rollouts_that_were_all_cut_may_be_meant_to_be(tmp_path: Path):
    folder = written(tmp_path, [rollout(0, 1.0, finished=False)])
    assert len(read_labels(folder, folder, allow_truncated=True)[0]) == 1


def test_columns_stand_in_the_order_that_is_asked_for():
    found = reward_columns([rollout(1, 0.5), rollout(3, -1.0)], ["other", "proxy"], "rewards")
    assert found.dtype == np.float64
    assert found.tolist() == [[2.0, 0.5], [6.0, -1.0]]


def test_a_reward_that_is_not_there_names_those_that_are():
    with pytest.raises(BadInput, match=r"^rewards: the labels have no reward 'gold'; they have: proxy, other"):
        reward_columns([rollout(0, 1.0)], ["gold"], "rewards")
    with pytest.raises(BadInput, match=r"^rewards: no reward is named"):
        reward_columns([rollout(0, 1.0)], [], "rewards")


@pytest.mark.parametrize(("bad", "said"), [(None, "nan"), (float("nan"), "nan"), (float("-inf"), "-inf")])
def test_a_reward_that_is_no_number_names_its_rollout(bad: float | None, said: str):
    rollouts = [rollout(i, bad if i == 6 else float(i)) for i in range(12)]
    with pytest.raises(BadInput, match=rf"^labels: reward 'proxy' is {said} for sample 1 of prompt 'p2'; label"):
        reward_columns(rollouts, ["proxy"], "rewards")


def test_an_empty_column_is_named():
    with pytest.raises(BadInput, match=r"^labels: reward 'proxy' is empty: none of 3 rollouts has one; label them"):
        reward_columns([rollout(i, None) for i in range(3)], ["proxy"], "rewards")


def test_mean_and_deviation_by_hand():
    # 1 3 5: mean 3, variance (4 + 0 + 4) / 3
    mean, sd = spread(np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 3.0]]), ["a", "b"])
    assert mean.tolist() == [3.0, 1.0]
    assert sd.tolist() == pytest.approx([(8 / 3) ** 0.5, 2**0.5])


def test_a_reward_with_one_value_is_named():
    with pytest.raises(BadInput, match=r"^labels: reward 'b' has one value on all training rollouts; nothing to learn"):
        spread(np.array([[1.0, 2.0], [3.0, 2.0]]), ["a", "b"])


@pytest.mark.parametrize(("share", "held"), [(0.0, 0), (0.01, 1), (0.25, 2), (0.5, 4), (0.99, 7)])
def test_a_share_of_the_prompts_only_measures_and_neither_side_is_left_empty(share: float, held: int):
    ids = [f"p{i % 8}" for i in range(40)]
    assert len(split_prompts(ids, share, seed=0)) == held


def test_the_split_goes_by_prompt_and_seed_and_not_by_the_order_of_rollouts():
    ids = [f"p{i}" for i in range(8)]
    assert split_prompts(ids, 0.5, 0) == split_prompts(ids[::-1] * 3, 0.5, 0)
    assert len({frozenset(split_prompts(ids, 0.5, seed)) for seed in range(9)}) > 1


def test_one_prompt_cannot_be_split_and_a_share_lies_between_0_and_1():
    with pytest.raises(BadInput, match=r"^labels: all rollouts answer one prompt"):
        split_prompts(["a", "a"], 0.1, 0)
    with pytest.raises(BadInput, match=r"^heldout: 1.0 is no share"):
        split_prompts(["a", "b"], 1.0, 0)
