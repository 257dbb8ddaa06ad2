"""Verdicts meet lengths and difficulty by instruction, and what does not meet is named."""

import pytest

from stages.errors import BadInput
from stages.judge.statistics.prompt_table import join

ITEMS = [
    {"instruction": "Name a river.", "len_reference": "20", "difficulty": "0.5"},
    {"instruction": "Add 2 and 3.", "len_reference": "5", "difficulty": "-1.0"},
    {"instruction": "Tell a joke.", "len_reference": "90", "difficulty": "0.25"},
]
VERDICTS = [
    {"instruction": "Tell a joke.", "preference": 2.0, "len_model": 70},
    {"instruction": "Name a river.", "preference": 1.0, "len_model": 30},
]


def test_rows_meet_by_instruction_wherever_they_stand():
    judged = join(VERDICTS, ITEMS)
    assert judged.instructions == ("Name a river.", "Tell a joke.")
    assert judged.preference.tolist() == [1.0, 2.0]
    assert judged.len_model.tolist() == [30, 70]
    assert judged.len_reference.tolist() == [20, 90]
    assert judged.difficulty.tolist() == [0.5, 0.25]


def test_items_without_a_verdict_are_named_where_all_are_wanted():
    with pytest.raises(BadInput, match=r"verdicts: 1 instruction \('Add 2 and 3.'\) without a verdict, of 3 items"):
        join(VERDICTS, ITEMS, complete=True)


def test_verdicts_on_unknown_instructions_are_named():
    stray = {"instruction": "Name a lake.", "preference": 1.0, "len_model": 3}
    with pytest.raises(BadInput, match=r"verdicts: 1 instruction \('Name a lake.'\) not among the 3 items"):
        join([*VERDICTS, stray], ITEMS)


@pytest.mark.parametrize("side", ["verdicts", "items"])
def test_duplicates_are_named_on_either_side(side):
    verdicts = VERDICTS + VERDICTS[:1] * (side == "verdicts")
    items = ITEMS + ITEMS[2:] * (side == "items")
    with pytest.raises(BadInput, match=rf"{side}: 1 instruction \('Tell a joke.'\) more than once"):
        join(verdicts, items)


def test_many_are_counted_and_the_first_three_quoted():
    strays = [{"instruction": f"stray {i}", "preference": 1.0, "len_model": 3} for i in range(9)]
    with pytest.raises(BadInput, match=r"9 instructions \('stray 0', 'stray 1', 'stray 2' and 6 more\)"):
        join(strays, ITEMS)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"preference": "soon"}, "preference = 'soon', not a number"),
        ({"instruction": None}, "row 0 has no instruction"),
    ],
)
def test_cells_that_cannot_be_used_are_named(change, problem):
    with pytest.raises(BadInput, match=problem):
        join([{**VERDICTS[0], **change}], ITEMS)


def test_a_missing_column_is_named():
    with pytest.raises(BadInput, match="without 'len_model'"):
        join([{"instruction": "Tell a joke.", "preference": 1.0}], ITEMS)


def test_restricting_to_instructions_that_were_not_judged_is_refused():
    judged = join(VERDICTS, ITEMS)
    assert judged.restricted(["Tell a joke."]).len_model.tolist() == [70]
    with pytest.raises(BadInput, match=r"'Add 2 and 3\.'"):
        judged.restricted(["Add 2 and 3."])
