"""The stage `rollouts`: the base's samples, from the engine that decodes."""

from pathlib import Path

import pytest

from stages.decode.decode import Decode
from stages.engine.causal_lm import CausalLM
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.records import Generation, Prompt, Rollout, read, write
from stages.runtime import Runtime
from stages.sample import Sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prompts = [Prompt(id=f"p{i}", part="train", text=text) for i, text in enumerate(["the plot is", "an honest"])]
    write(tmp_path / "prompts.parquet", Prompt, prompts)
    return tmp_path


def test_rollouts_are_the_samples_that_the_base_decodes(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    told: dict[str, float] = {}
    policy, sampling = CausalLM(tiny_model), Sampling(temperature=0.8, max_new_tokens=6)
    Sample(folder, ["train"], policy, sampling, samples=3, seed=5, runtime=Runtime(metrics=told.update)).run(tmp_path)
    Decode(folder, ["train"], policy, "base", {}, sampling, samples=3, seed=5).run(tmp_path)
    rollouts = read(tmp_path / "rollouts.parquet", Rollout)
    generations = read(tmp_path / "generations.parquet", Generation)
    assert [(r.prompt_id, r.sample) for r in rollouts] == [(p, s) for p in ("p0", "p1") for s in range(3)]
    assert [r.token_ids for r in rollouts] == [g.token_ids for g in generations]
    assert [r.logprob for r in rollouts] == [g.logprob for g in generations]
    assert told["length"] == sum(len(r.token_ids) for r in rollouts) / 6
    assert set(told) == {"tokens_per_second", "length", "finished", "distinct"}


def test_an_absent_part_is_refused(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"parts: no prompt is in part 'test'; there are train"):
        Sample(folder, ["test"], CausalLM(tiny_model), Sampling()).run(tmp_path)


def test_a_prompt_without_room_is_refused(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"prompts: prompt 'p\d' has \d+ tokens and 255 are to be generated"):
        Sample(folder, ["train"], CausalLM(tiny_model), Sampling(max_new_tokens=255)).run(tmp_path)


@pytest.mark.parametrize("count", [2, 3])
def test_shards_merge_into_the_same_rollouts(folder: Path, tiny_model: Path, tmp_path: Path, count: int) -> None:
    told: dict[str, float] = {}
    policy, sampling = CausalLM(tiny_model), Sampling(temperature=0.8, max_new_tokens=6)
    stage = Sample(folder, ["train"], policy, sampling, samples=3, seed=5, runtime=Runtime(metrics=told.update))
    for name in ("whole", "merged", *map(str, range(count))):
        (tmp_path / name).mkdir()
    stage.run(tmp_path / "whole")
    alone = dict(told)
    for index in range(count):  # with three shards of two prompts the first is empty
        stage.run_shard(tmp_path / str(index), index, count)
    stage.merge([tmp_path / str(index) for index in range(count)], tmp_path / "merged")
    whole, merged = (read(tmp_path / name / "rollouts.parquet", Rollout) for name in ("whole", "merged"))
    assert [(r.prompt_id, r.sample, r.token_ids) for r in whole] == [
        (r.prompt_id, r.sample, r.token_ids) for r in merged
    ]
    # other rows in a batch, other rounding
    assert [r.logprob for r in whole] == pytest.approx([r.logprob for r in merged], rel=1e-5)
    assert {name: alone[name] for name in ("length", "finished", "distinct")} == {
        name: told[name] for name in ("length", "finished", "distinct")
    }
