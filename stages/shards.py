"""Stages in parts: which rows a shard computes, and the file that all shards are merged into."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from stages.records import Record, read, write

Item = TypeVar("Item")


def block(items: Sequence[Item], shard: tuple[int, int] | None) -> Sequence[Item]:
    """The items of shard (index, count), consecutive ones; all of them where there is no shard.

    >>> [block("abcdefg", (i, 3)) for i in range(3)]
    ['ab', 'cd', 'efg']
    """
    if shard is None:
        return items
    index, count = shard
    return items[len(items) * index // count : len(items) * (index + 1) // count]


def merge(parts: Sequence[Path], out: Path, name: str, kind: type[Record]) -> list[Record]:
    """Writes the records of file `name` of all parts, in order, into one such file in `out`, and returns them."""
    records = [record for part in parts for record in read(Path(part) / name, kind)]
    write(Path(out) / name, kind, records)
    return records
