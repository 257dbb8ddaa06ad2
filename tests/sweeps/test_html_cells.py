"""Cells and names of the report's tables."""

from typing import Any

import pytest

from sweeps.html_cells import NONE, cell, method_class, minus, name, row_head, signed


def content(**changes: Any) -> dict[str, Any]:
    point = {"method": "vas", "name": "vas (β = 1)", "strength": "β = 1", "chosen": False} | changes
    return {"points": [{**point, "method": "base", "name": "base"}, point], "reference": 0}


def test_a_cell_is_the_mean_above_its_interval_with_real_minus_signs() -> None:
    assert cell({"mean": -1.234, "low": -2.0, "high": 1.0}) == "<td>−1.23<small>[−2.00, 1.00]</small></td>"
    assert cell({"mean": 0.5, "low": 0.25, "high": 0.75}, 0, 100) == "<td>50<small>[25, 75]</small></td>"
    assert cell({"mean": 12345.6, "low": None, "high": None}, 1) == "<td>12,345.6</td>"
    assert cell({"mean": None, "low": None, "high": None}) == NONE


def test_a_difference_shows_its_sign() -> None:
    assert signed({"mean": 1.0, "low": -0.5, "high": 2.5}) == "+1.00 <small>[−0.50, +2.50]</small>"
    assert signed({"mean": 1.0, "low": None, "high": None}) == "1.00"


@pytest.mark.parametrize(("text", "shown"), [("a -0.5 b", "a −0.5 b"), ("top-5 of 3-4", "top-5 of 3-4"), ("-x", "-x")])
def test_only_numbers_get_a_minus_sign(text: str, shown: str) -> None:
    assert minus(text) == shown


def test_a_row_says_whether_its_point_was_chosen_and_whether_it_is_the_reference() -> None:
    assert "badge" not in row_head(content(), 1)
    chosen = row_head(content(chosen=True), 1)
    assert chosen.startswith('<tr class="chosen"><th scope=row><span class="dot m1"></span>vas</th>')
    assert '<span class="badge">chosen</span>' in chosen
    assert '<span class="badge quiet">reference</span>' in row_head(content(), 0)


def test_everything_of_a_method_has_its_colour_and_no_text_becomes_markup() -> None:
    assert (method_class(content(), 0), method_class(content(), 1)) == ("m0", "m1")
    hostile = content(name="<b>", method="<i>", strength="<u>")
    assert name(hostile, 1) == '<span class="dot m1"></span>&lt;b&gt;'
    assert "<i>" not in row_head(hostile, 1)
    assert "<u>" not in row_head(hostile, 1)
