"""Reading what another stage wrote."""

from pathlib import Path

import pytest

from stages import records
from stages.errors import BadInput
from stages.payloads import read_records
from stages.records import Example, Prompt

PROMPTS = [Prompt(id="b", part="test", text="Why?"), Prompt(id="a", part="train", text="How?")]


def test_records_come_back_in_their_order(tmp_path: Path) -> None:
    records.write(tmp_path / "prompts.parquet", Prompt, PROMPTS)
    assert read_records(tmp_path / "prompts.parquet", Prompt, "prompts") == PROMPTS


def test_a_file_that_is_not_there_is_named_by_the_field(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        read_records(tmp_path / "prompts.parquet", Prompt, "points.3.score")
    assert refused.value.field == "points.3.score"
    assert refused.value.problem.startswith(f"{tmp_path / 'prompts.parquet'} cannot be read: ")
    assert "\n" not in str(refused.value)


def test_other_records_and_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    records.write(tmp_path / "prompts.parquet", Prompt, PROMPTS)
    with pytest.raises(BadInput, match=r"examples: .* holds no Example records: column 'prompt' is missing"):
        read_records(tmp_path / "prompts.parquet", Example, "examples")
    (tmp_path / "text.parquet").write_text("not a table\nat all")
    with pytest.raises(BadInput) as refused:
        read_records(tmp_path / "text.parquet", Example, "examples")
    assert "\n" not in str(refused.value)
