"""Records keep their types and values on disk."""

import dataclasses
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages import records
from stages.records import Example, Generation, Labelled, Prompt, Rollout, Score, Verdict


def rollout(**changes: object) -> Rollout:
    values = dict(prompt_id="a", sample=0, token_ids=[5, 6, 2], text=" fine — “so”.", logprob=-3.5, finished=True)
    return Rollout(**{**values, **changes})  # type: ignore[arg-type]


def test_what_is_written_is_read_in_the_same_order(tmp_path: Path) -> None:
    written = [rollout(sample=n, token_ids=list(range(n))) for n in range(3)]
    records.write(tmp_path / "rollouts.parquet", Rollout, written)
    assert records.read(tmp_path / "rollouts.parquet", Rollout) == written


def test_messages_and_defaults_survive(tmp_path: Path) -> None:
    written = [
        Prompt(id="a", part="test", text="Q", messages=[{"role": "user", "content": "Q"}]),
        Prompt(id="b", part="test", text="R", opening="o", reference=" r"),
    ]
    records.write(tmp_path / "prompts.parquet", Prompt, written)
    assert records.read(tmp_path / "prompts.parquet", Prompt) == written


def test_each_reward_is_a_column_of_its_own(tmp_path: Path) -> None:
    written = [Labelled(**vars(rollout()), part="train", rewards={"proxy": 1.5, "gold": -2.0})]
    records.write(tmp_path / "labels.parquet", Labelled, written)
    table = pq.read_table(tmp_path / "labels.parquet")
    assert table["reward.proxy"].to_pylist() == [1.5]
    assert "rewards" not in table.column_names
    assert records.read(tmp_path / "labels.parquet", Labelled) == written


def test_nan_is_kept_apart_from_missing(tmp_path: Path) -> None:
    extra = dict(part="test", method="m", settings="{}", base_logprob=0.0, kl_kind="none", tokens=3, flops=1.0)
    written = [Generation(**(vars(rollout()) | extra), kl=math.nan, seconds=0.1)]  # type: ignore[arg-type]
    records.write(tmp_path / "generations.parquet", Generation, written)
    (read,) = records.read(tmp_path / "generations.parquet", Generation)
    assert math.isnan(read.kl)
    assert dataclasses.replace(read, kl=0.0) == dataclasses.replace(written[0], kl=0.0)


def test_no_records_still_have_a_schema(tmp_path: Path) -> None:
    records.write(tmp_path / "examples.parquet", Example, [])
    assert records.read(tmp_path / "examples.parquet", Example) == []
    assert pq.read_schema(tmp_path / "examples.parquet").names == ["id", "part", "prompt", "text", "label"]


@pytest.mark.parametrize("kind", [Example, Prompt, Rollout, Labelled, Generation, Score])
def test_every_record_has_a_schema(kind: type) -> None:
    names = records.schema(kind, ["proxy"]).names
    expected = [f.name for f in dataclasses.fields(kind)]
    assert names == ["reward.proxy" if name == "rewards" else name for name in expected]


def test_types_on_disk() -> None:
    schema = records.schema(Rollout)
    assert schema.field("token_ids").type == pa.list_(pa.int64())
    assert schema.field("finished").type == pa.bool_()


def test_another_kind_of_record_is_refused(tmp_path: Path) -> None:
    records.write(tmp_path / "x.parquet", Rollout, [rollout()])
    with pytest.raises(ValueError, match="holds no Prompt records: column 'id' is missing"):
        records.read(tmp_path / "x.parquet", Prompt)


def test_a_verdict_keeps_what_there_is_not(tmp_path: Path) -> None:
    """A failed verdict has no preference and one of an unknown price no cost: null, and not nan."""
    given = dict(
        prompt_id="a", part="test", sample=0, judge="j", candidate="vas", reference="base", canary=False,
        order="either", problem="", candidate_chars=1, reference_chars=2, answer="", asked=1, model="",
        prompt_tokens=0, completion_tokens=0, request="",
    )  # fmt: skip
    written = [
        Verdict(**given, preference=1.5, outcome="identical", cost=0.25),  # type: ignore[arg-type]
        Verdict(**given, preference=None, outcome="refusal", cost=None),  # type: ignore[arg-type]
    ]
    records.write(tmp_path / "verdicts.parquet", Verdict, written)
    assert records.read(tmp_path / "verdicts.parquet", Verdict) == written
    assert pq.read_table(tmp_path / "verdicts.parquet")["preference"].to_pylist() == [1.5, None]
