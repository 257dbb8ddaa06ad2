"""The comparison as a table for the terminal."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sweeps.summary import WIDTH, summary


@pytest.fixture
def content(study: Path) -> dict[str, Any]:
    return json.loads((study / "comparison.json").read_text())


def test_every_point_is_a_row_and_the_verdict_ends_the_text(content: dict[str, Any]) -> None:
    text = summary(content)
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "\x1b" not in text
    assert lines[0] == "64 test prompts, 64 responses a point; [95 % intervals] over prompts"
    assert sum(re.match(r"[*r ]*(base|bon|vas)  ", line) is not None for line in lines) == 7
    assert " ".join(text.split()).endswith(" ".join(content["verdict"].split()))


def test_marks_are_explained_where_they_are_used_alone(content: dict[str, Any]) -> None:
    text = summary(content)
    assert "* chosen by proxy on validation" in text
    assert "≤ an upper bound" in text
    assert "~ before truncation" not in text
    plain = content | {
        "reference": None,
        "points": [p | {"chosen": False, "kl_kind": "exact"} for p in content["points"]],
    }
    assert "chosen by proxy" not in summary(plain)
    assert "r the reference" not in summary(plain)


def test_a_bound_and_a_kl_before_truncation_are_marked(content: dict[str, Any]) -> None:
    rows = {kind: summary(content | {"points": [p | {"kl_kind": kind} for p in content["points"]]})
            for kind in ("exact", "bound", "untruncated")}  # fmt: skip
    marks = {kind: sum(mark in text for mark in ("≤ ", "~ ")) for kind, text in rows.items()}
    assert marks == {"exact": 0, "bound": 1, "untruncated": 1}
