"""What a field holds, against the type that it declares."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stages.errors import BadInput
from stages.fields import check_types


@dataclass
class Holder:
    text: str = "a"
    whole: int = 1
    number: float = 1.0
    switch: bool = True
    texts: list[str] = field(default_factory=list)
    mapping: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    maybe: float | None = None
    anything: Any = None


def test_what_a_field_declares_it_may_hold() -> None:
    check_types(Holder())
    check_types(Holder(number=3, maybe=2, texts=["a"], mapping={"a": [1]}, folder="here", anything=object()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("text", 5, "5 is not text"),
        ("text", None, "null is not text"),
        ("text", "\ud800", "'\\ud800' is not text"),  # cannot be written as UTF-8
        ("whole", 1.5, "1.5 is not a whole number"),
        ("whole", True, "True is not a whole number"),
        ("whole", 2**63, f"{2**63} is not a whole number"),
        ("number", float("nan"), "nan is not a number"),
        ("number", 10**400, "is not a number"),
        ("number", "1", "'1' is not a number"),
        ("switch", 1, "1 is not true or false"),
        ("texts", [1], "[1] is not a list of texts"),
        ("mapping", {1: 2}, "{1: 2} is not a mapping with texts as keys"),
        ("folder", 3, "3 is not the path of a folder"),
        ("maybe", "x", "'x' is not a number"),
    ],
)
def test_what_it_may_not_hold_is_refused_by_its_name(name: str, value: Any, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_types(Holder(**{name: value}), "judge.")
    assert refused.value.field == f"judge.{name}"
    assert says in refused.value.problem
    assert len(refused.value.problem) < 120  # a long value is cut
