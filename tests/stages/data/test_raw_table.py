"""Reading tables of every kind, and cleaning the texts in them."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from stages.data.raw_table import clean, find_table, read_table, text_of
from stages.errors import BadInput

ROWS = [{"text": 'a "b", c', "n": "1"}, {"text": "two\nlines", "n": ""}]
CSV = b'text,n\r\n"a ""b"", c",1\r\n"two\nlines",\r\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", CSV),
        ("t.csv", b"\xef\xbb\xbf" + CSV),  # with a byte order mark, as Excel writes it
        ("t.tsv", CSV.replace(b",1", b"\t1").replace(b'",\r', b'"\t\r').replace(b"text,n", b"text\tn")),
        ("t.CSV.gz", gzip.compress(CSV, mtime=0)),
        ("t.csv.bz2", bz2.compress(CSV)),
        ("t.csv.xz", lzma.compress(CSV)),
        ("t.json", json.dumps(ROWS).encode()),
        ("t.jsonl", "\n\n".join(map(json.dumps, ROWS)).encode()),
    ],
    ids=["csv", "csv with a byte order mark", "tsv", "gz", "bz2", "xz", "json", "jsonl"],
)
def test_a_table_is_a_list_of_rows(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_table(find_table(tmp_path, "table"), "table") == ROWS


def test_one_json_object_is_one_row_and_numbers_stay_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"text": "a", "n": 1}')
    assert read_table(tmp_path / "t.json", "table") == [{"text": "a", "n": 1}]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("t.json", b"[1, 2]", "is not a list of objects"),
        ("t.jsonl", b'{"a": 1}\n{', "cannot be read as .jsonl"),
        ("t.csv", b"a,b\n1,2,3\n", "row 1 has more cells than the header names"),
        ("t.csv", b"a\n\xff\n", "is not UTF-8 text (invalid start byte at byte 2); convert it"),
        ("t.csv.gz", b"a,b", "cannot be read as .csv"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as raised:
        read_table(tmp_path / name, "stages.x")
    assert raised.value.field == "stages.x"
    assert line in raised.value.problem
    assert "\n" not in raised.value.problem


def test_a_folder_has_to_hold_exactly_one_table(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^table: .* holds 0 tables \(\.csv, "):
        find_table(tmp_path, "table")
    (tmp_path / "README.md").write_text("not a table")
    (tmp_path / "a.csv").write_text("x")
    assert find_table(tmp_path, "table") == tmp_path / "a.csv"
    (tmp_path / "b.jsonl.gz").write_text("x")
    with pytest.raises(BadInput, match=r"^table: .* holds 2 tables"):
        find_table(tmp_path, "table")
    with pytest.raises(BadInput, match=r"^table: .*README\.md is no table that can be read"):
        find_table(tmp_path / "README.md", "table")


def test_no_cell_is_empty_text() -> None:
    assert [text_of(cell) for cell in (None, "", "a", 2)] == ["", "", "a", "2"]


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  two\nlines\t and  blanks ", "two lines and blanks"),
        ("Lilo &amp; Stitch <i>again</i>", "Lilo & Stitch again"),
        ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
        ("It’s “fine”", 'It\'s "fine"'),
        ("…and yet", "and yet"),
        ("'quoted in full'", "quoted in full"),
        ("'quoted' and 'again'", "'quoted' and 'again'"),
        ("cafe\u0301 \x00 noir", "café noir"),
    ],
)
def test_texts_are_cleaned(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned
