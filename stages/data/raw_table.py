"""Reading a table of raw data, and cleaning the texts in it."""

import bz2
import csv
import gzip
import html
import json
import lzma
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from stages.errors import BadInput

_OPENERS: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
_KINDS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_LONGEST_CELL = 1 << 30
_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "\x85": "…", "\u00ad": ""})


def find_table(path: Path, field: str) -> Path:
    """`path` itself, or the one table inside it where it is a folder. Raises BadInput where there is none, or two."""
    if path.is_dir():
        tables = sorted(file for file in path.iterdir() if file.is_file() and _kind(file) in _KINDS)
        if len(tables) != 1:
            raise BadInput(field, f"{path} holds {len(tables)} tables ({', '.join(_KINDS)}) where one is expected")
        return tables[0]
    if not path.is_file():
        raise BadInput(field, f"{path} does not exist")
    if _kind(path) not in _KINDS:
        raise BadInput(field, f"{path} is no table that can be read ({', '.join(_KINDS)}; also .bz2, .gz, .xz)")
    return path


def read_table(path: Path, field: str) -> list[dict[str, Any]]:
    """The table's rows as mappings; cells of CSV and TSV are text. Raises BadInput where the file cannot be parsed."""
    try:
        if _kind(path) == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path).to_pylist()
        opener = _OPENERS.get(path.suffix.lower(), open)
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            rows = _parse(stream, _kind(path))
    except UnicodeDecodeError as error:
        raise BadInput(field, f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error
    except (ValueError, csv.Error, EOFError, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the file's contents
            raise
        raise BadInput(field, f"{path} cannot be read as {_kind(path)}: {str(error).splitlines()[0]}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise BadInput(field, f"{path} is not a list of objects")
    return rows


def _kind(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() in _OPENERS else path
    return plain.suffix.lower()


def _parse(stream: TextIO, kind: str) -> list[dict[str, Any]]:
    if kind == ".json":
        rows = json.load(stream)
        return rows if isinstance(rows, list) else [rows]
    if kind == ".jsonl":
        return [json.loads(line) for line in stream if line.strip()]
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        rows = list(csv.DictReader(stream, delimiter="\t" if kind == ".tsv" else ",", strict=True))
    finally:
        csv.field_size_limit(before)
    for number, row in enumerate(rows):
        if None in row:
            raise ValueError(f"row {number + 1} has more cells than the header names")
    return rows


def text_of(cell: Any) -> str:
    """A cell as text: empty for none."""
    return "" if cell is None else str(cell)


def clean(text: str) -> str:
    """One line of plain prose: no HTML, straight quotes, single blanks, no dots before it, no quotes around all of it.

    >>> clean("&hellip;a  <i>quiet</i>\\nwonder &amp; a joy")
    'a quiet wonder & a joy'
    """
    text = re.sub(r"<\\?/?[A-Za-z][^<>]*>", "", html.unescape(text))
    text = unicodedata.normalize("NFC", text).translate(_QUOTES)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split()).lstrip(".… ")
    for quote in "'\"":
        if len(text) > 1 and text[0] == text[-1] == quote and quote not in text[1:-1]:
            text = text[1:-1].strip()
    return text
