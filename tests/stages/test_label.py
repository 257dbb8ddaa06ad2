"""Labels: one column a reward, in the rollouts' order, and nothing that is not a number."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stages import records
from stages.errors import BadInput
from stages.label import Label
from stages.records import Labelled, Prompt, Rollout
from stages.runtime import Runtime


class Length:
    """Characters of the response; NaN for a response named so."""

    def __init__(self, sign: float = 1.0, shape: tuple[int, ...] | None = None) -> None:
        self.sign, self.shape = sign, shape

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        if self.shape:
            return np.zeros(self.shape)
        return np.array([float("nan") if r == "broken" else self.sign * len(r) for r in responses])


def payload(folder: Path, texts: Sequence[str], prompt_ids: Sequence[str] = ("a", "b")) -> Path:
    records.write(
        folder / "prompts.parquet",
        Prompt,
        [Prompt(id="a", part="train", text="x"), Prompt(id="b", part="validation", text="y")],
    )
    rollouts = [
        Rollout(
            prompt_id=prompt_ids[i % len(prompt_ids)],
            sample=i,
            token_ids=[5, 2],
            text=text,
            logprob=-1.5,
            finished=i % 2 == 0,
        )
        for i, text in enumerate(texts)
    ]
    records.write(folder / "rollouts.parquet", Rollout, rollouts)
    return folder


def label(folder: Path, rewards: dict, **runtime) -> list[Labelled]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    Label(rollouts=folder, prompts=folder, rewards=rewards, runtime=Runtime(**runtime)).run(out)
    return records.read(out / "labels.parquet", Labelled)


def test_every_rollout_gets_a_column_of_each_reward_in_its_own_row(tmp_path: Path):
    found = label(payload(tmp_path, ["long one", "b", "", "mid"]), {"proxy": Length(), "gold": Length(-1)}, rows=3)
    assert [row.text for row in found] == ["long one", "b", "", "mid"]
    assert [row.rewards["proxy"] for row in found] == [8, 1, 0, 3]
    assert [row.rewards["gold"] for row in found] == [-8, -1, 0, -3]


def test_the_rollout_itself_and_its_part_are_kept(tmp_path: Path):
    first, second = label(payload(tmp_path, ["ab", "c"]), {"proxy": Length()})
    assert (first.prompt_id, first.part, first.token_ids, first.logprob, first.finished) == (
        "a",
        "train",
        [5, 2],
        -1.5,
        True,
    )
    assert (second.prompt_id, second.part, second.sample, second.finished) == ("b", "validation", 1, False)


def test_portions_change_nothing(tmp_path: Path):
    folder = payload(tmp_path, ["x" * (i % 5) for i in range(11)])
    assert label(folder, {"proxy": Length()}, rows=2) == label(folder, {"proxy": Length()}, rows=64)


def test_progress_and_figures(tmp_path: Path):
    told, figures = [], {}
    label(
        payload(tmp_path, ["", "ab", "abcd"]),
        {"proxy": Length(), "gold": Length()},
        rows=2,
        progress=lambda *now: told.append(now),
        metrics=figures.update,
    )
    assert told == [(2, 6, "proxy"), (3, 6, "proxy"), (5, 6, "gold"), (6, 6, "gold")]
    # lengths 0, 2, 4: mean 2, variance (4 + 0 + 4)/3; two of three are finished
    assert figures["proxy_mean"] == 2
    assert figures["proxy_sd"] == pytest.approx((8 / 3) ** 0.5)
    assert figures["finished"] == pytest.approx(2 / 3)


def test_a_reward_that_is_not_a_number_names_the_rollout(tmp_path: Path):
    folder = payload(tmp_path, ["fine", "broken"])
    with pytest.raises(BadInput, match=r"^rewards\.proxy: Length gave nan for prompt 'b' and response 'broken'"):
        label(folder, {"proxy": Length()})


def test_a_reward_of_the_wrong_shape_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"^rewards\.mine: .*\(2, 1\)"):
        label(payload(tmp_path, ["a", "b"]), {"mine": Length(shape=(2, 1))})


def test_no_reward_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"^rewards: no reward is named"):
        label(payload(tmp_path, ["a"]), {})


def test_a_rollout_of_an_unknown_prompt_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"^prompts: prompt 'z' has rollouts"):
        label(payload(tmp_path, ["a"], prompt_ids=["z"]), {"proxy": Length()})


def test_shards_merge_into_the_same_bytes(tmp_path: Path) -> None:
    folder = payload(tmp_path, ["good", "bad", "fair", "fine", "poor"])
    told: dict[str, float] = {}
    stage = Label(folder, folder, {"length": Length()}, Runtime(metrics=told.update))
    for name in ("whole", "merged", "0", "1"):
        (tmp_path / name).mkdir()
    stage.run(tmp_path / "whole")
    alone = dict(told)
    for index in range(2):
        stage.run_shard(tmp_path / str(index), index, 2)
    stage.merge([tmp_path / "0", tmp_path / "1"], tmp_path / "merged")
    assert (tmp_path / "whole/labels.parquet").read_bytes() == (tmp_path / "merged/labels.parquet").read_bytes()
    assert told == alone


def test_an_empty_shard_is_an_empty_part(tmp_path: Path) -> None:
    """As `sample` and `decode` allow: more shards than rollouts."""
    folder = payload(tmp_path, ["good", "bad"])
    stage = Label(folder, folder, {"length": Length()})
    for name in ("whole", "merged", "0", "1", "2"):
        (tmp_path / name).mkdir()
    stage.run(tmp_path / "whole")
    for index in range(3):
        stage.run_shard(tmp_path / str(index), index, 3)
    parts = [tmp_path / str(index) for index in range(3)]
    assert [len(records.read(part / "labels.parquet", Labelled)) for part in parts] == [0, 1, 1]
    stage.merge(parts, tmp_path / "merged")
    assert (tmp_path / "whole/labels.parquet").read_bytes() == (tmp_path / "merged/labels.parquet").read_bytes()


def test_an_empty_whole_is_refused_by_every_way_to_run_it(tmp_path: Path) -> None:
    folder = payload(tmp_path, [])
    stage = Label(folder, folder, {"length": Length()})
    (out := tmp_path / "out").mkdir()
    for run in (lambda: stage.run(out), lambda: stage.run_shard(out, 0, 2)):
        with pytest.raises(BadInput, match=r"^rollouts: there are no rollouts to label"):
            run()
    assert list(out.iterdir()) == []
