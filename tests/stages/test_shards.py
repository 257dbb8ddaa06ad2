"""Stages in parts: every row is in one shard, and what is merged stands in the order of the whole."""

from pathlib import Path

import pytest

from stages.records import Prompt, read, write
from stages.shards import block, merge


def test_consecutive_rows_go_into_shards_that_differ_by_one_at_most():
    # 7 rows in 3: up to 7/3 = 2, up to 14/3 = 4, all
    assert [block("abcdefg", (i, 3)) for i in range(3)] == ["ab", "cd", "efg"]
    assert block("abcdefg", None) == "abcdefg"


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 12])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_no_row_is_lost_or_computed_twice(rows: int, count: int):
    shards = [block(range(rows), (i, count)) for i in range(count)]
    assert [row for shard in shards for row in shard] == list(range(rows))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_parts_are_merged_in_order_the_empty_ones_too(tmp_path: Path):
    prompts = [Prompt(id=str(i), part="train", text="x") for i in range(3)]
    parts = []
    for i, chosen in enumerate(([], prompts[:2], prompts[2:])):
        parts.append(tmp_path / str(i))
        write(parts[-1] / "p.parquet", Prompt, chosen)
    assert merge(parts, tmp_path / "merged", "p.parquet", Prompt) == prompts
    assert read(tmp_path / "merged" / "p.parquet", Prompt) == prompts
