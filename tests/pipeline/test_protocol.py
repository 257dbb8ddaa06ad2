"""What errors may say of themselves, and the handles that a stage may have."""

import errno
from typing import Any

import pytest

from pipeline.protocol import exit_code, field_at_fault, handles, retryable


def said(error: Exception, **attributes: Any) -> Exception:
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def test_an_error_with_a_field_and_a_problem_blames_the_field() -> None:
    assert field_at_fault(said(ValueError("x"), field="guide.k", problem="0 is too few")) == ("guide.k", "0 is too few")
    assert field_at_fault(said(ValueError("x"), field="guide.k")) is None
    assert field_at_fault(said(ValueError("x"), field=3, problem="another library's idea of a field")) is None
    assert field_at_fault(ValueError("x")) is None


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (RuntimeError("x"), False),
        (said(RuntimeError("x"), retryable=True), True),
        (said(ConnectionError("a key that is refused"), retryable=False), False),  # what it says counts first
    ],
)
def test_another_attempt_is_made_where_the_error_says_so_or_is_of_a_passing_kind(error: Exception, again: bool) -> None:
    assert retryable(error) is again


def test_an_exit_code_is_a_whole_number() -> None:
    assert exit_code(said(RuntimeError(), exit_code=3)) == 3
    assert exit_code(said(RuntimeError(), exit_code="3")) is None
    assert exit_code(RuntimeError()) is None


def test_a_stage_without_a_runtime_is_handed_nothing() -> None:
    class Bare:
        def run(self, out: object) -> None: ...

    stage = Bare()
    assert handles(stage) is None
    stage.runtime = marker = object()  # type: ignore[attr-defined]
    assert handles(stage) is marker
