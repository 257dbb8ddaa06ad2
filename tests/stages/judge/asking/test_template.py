"""Judge prompts: every placeholder filled once, outputs untouched, templates checked before anything is asked."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import BadInput
from stages.judge.asking.template import FOLDER, MODES, SHIPPED, fence, labels, load_template, render

NAMES = [name for name in SHIPPED if not name.startswith("answer_")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_template_shows_all_and_asks_for_one_answer(name: str, mode: str) -> None:
    messages = render(load_template(name, mode), mode, instruction="WHY?", first="ONE", second="TWO")
    user = messages[-1]["content"]
    assert [m["role"] for m in messages] == ["system", "user"]
    assert user.index("WHY?") < user.index("ONE") < user.index("TWO")
    assert "{{" not in user + messages[0]["content"]
    first, second = labels(mode)
    assert user.index(f'"{first}"') < user.index("ONE") < user.index(f'"{second}"') < user.index("TWO")
    asked = user[user.index("TWO") :]
    assert {"logprob": "m or M", "structured": '"rationale"', "text": f"[[{first}]]"}[mode] in asked


def test_every_file_is_known_and_unedited() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(SHIPPED)
    for name in NAMES:  # an edited file raises: its verdicts would pass for those of the old one
        load_template(name, "text")


@given(st.text(), st.text(), st.text())
def test_a_hardened_prompt_gives_every_text_back_from_one_line_each(instruction: str, first: str, second: str) -> None:
    content = render(load_template("hardened", "text"), "text", instruction=instruction, first=first, second=second)
    user = content[-1]["content"]
    word = fence(0, instruction, first, second)
    assert word not in instruction + first + second
    assert user.isascii()
    blocks = re.findall(rf"^<{word}[^\n]*>\n(.*)\n</{word}>$", user, re.MULTILINE)
    assert [json.loads(block) for block in blocks] == [instruction, first, second]


def test_fences_differ_between_items_and_seeds_and_do_not_move() -> None:
    assert fence(0, "a", "b") == fence(0, "a", "b")
    assert len({fence(0, "a", "b"), fence(1, "a", "b"), fence(0, "a", "c")}) == 3


def test_placeholders_inside_an_output_stay_as_they_are() -> None:
    user = render(
        load_template("alpaca_eval", "text"), "text", instruction="q", first="{{second}}", second="{{answer}}"
    )
    assert "{{second}}" in user[-1]["content"]
    assert "{{answer}}" in user[-1]["content"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[system]\nx", r"no part below a line `\[user\]`"),
        ("[user]\n{{instruction}} {{first}} {{second}} {{answer}} {{third}}", "{{third}}, which stands for nothing"),
        ("[user]\n{{instruction}} {{first}} {{answer}}", "shows no {{second}}"),
        ("[user]\n{{instruction}} {{first}} {{second_json}}", "no {{answer}}"),
    ],
)
def test_a_template_of_your_own_is_checked(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "own.txt"
    path.write_text(text)
    with pytest.raises(BadInput, match=says) as refused:
        load_template(str(path), "text")
    assert refused.value.field == "template"
    path.write_text("[user]\n{{instruction}} {{first}} {{second}} {{answer}}")
    assert load_template(str(path), "text").system == ""
