"""Which prompts responses answer."""

from pathlib import Path

import pytest

from stages import records
from stages.asked import asked_prompts
from stages.errors import BadInput
from stages.records import Prompt, Rollout


def answer(prompt_id: str) -> Rollout:
    return Rollout(prompt_id=prompt_id, sample=0, token_ids=[5], text="", logprob=0.0, finished=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records.write(tmp_path / "prompts.parquet", Prompt, [Prompt(id=i, part="train", text=f"text {i}") for i in "ab"])
    return tmp_path


def test_all_prompts_are_given_by_id(folder: Path):
    found = asked_prompts(folder, [answer("b")])
    assert {name: prompt.text for name, prompt in found.items()} == {"a": "text a", "b": "text b"}
    assert sorted(asked_prompts(folder, [])) == ["a", "b"]


def test_the_first_response_to_an_unknown_prompt_is_named_with_what_it_is(folder: Path):
    with pytest.raises(BadInput, match=r"^prompts: prompt 'y' has generations but is not among the prompts$"):
        asked_prompts(folder, [answer("a"), answer("y"), answer("z")], "generations")


def test_a_table_that_is_missing_or_of_another_kind_is_one_line(tmp_path: Path):
    with pytest.raises(BadInput, match=r"^prompts: ") as error:
        asked_prompts(tmp_path, [])
    assert "\n" not in str(error.value)
    records.write(tmp_path / "prompts.parquet", Rollout, [answer("a")])
    with pytest.raises(BadInput, match=r"^prompts: .* holds no Prompt records: column 'id' is missing"):
        asked_prompts(tmp_path, [])
