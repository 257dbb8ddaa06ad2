"""Which responses meet, and the null model's."""

from pathlib import Path

import pytest

from stages import records
from stages.errors import BadInput
from stages.judge.verdicts.pairs import NULL_MODEL, canaries, pairs_of, whole_chat
from stages.records import Generation, Prompt
from tests.stages.judge.judging import generation, write_methods

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def pairs(payloads: dict[str, Path], parts: tuple[str, ...] = ()) -> list:
    return pairs_of(payloads["generations"], payloads["reference_generations"], payloads["prompts"], parts)


def test_responses_meet_by_prompt_and_sample_wherever_they_stand(tmp_path: Path) -> None:
    payloads = write_methods(tmp_path, ["a0", "b0"], ["x0", "y0"])
    for name, rows in (
        ("candidate", [("p0001", "b1", 1), ("p0000", "a0", 0), ("p0001", "b0", 0)]),
        ("reference", [("p0000", "x0", 0), ("p0001", "y0", 0), ("p0001", "y1", 1)]),
    ):
        made = [generation(prompt, text, name, sample) for prompt, text, sample in rows]
        records.write(tmp_path / name / "generations.parquet", Generation, made)
    found = pairs(payloads)
    assert [(p.prompt.id, p.sample, p.candidate, p.reference) for p in found] == [
        ("p0001", 1, "b1", "y1"), ("p0000", 0, "a0", "x0"), ("p0001", 0, "b0", "y0"),
    ]  # fmt: skip
    assert {(p.candidate_method, p.reference_method, p.canary) for p in found} == {("candidate", "reference", False)}
    assert found[1].instruction == "Instruction 0"


def test_only_the_parts_that_are_asked_for_are_judged(tmp_path: Path) -> None:
    payloads = write_methods(tmp_path, ["a"], ["x"])
    assert len(pairs(payloads, ("test",))) == 1
    with pytest.raises(BadInput, match=r"parts: no generation is in part 'train'; there are test"):
        pairs(payloads, ("train",))


@pytest.mark.parametrize("missing", ["generations", "reference_generations", "prompts"])
def test_a_folder_without_records_is_refused_by_its_own_name(tmp_path: Path, missing: str) -> None:
    payloads = write_methods(tmp_path, ["a"], ["x"]) | {missing: tmp_path / "nowhere"}
    with pytest.raises(BadInput, match=r"nowhere.* cannot be read: ") as refused:
        pairs(payloads)
    assert refused.value.field == missing


def test_a_prompt_that_nobody_wrote_down_is_named(tmp_path: Path) -> None:
    payloads = write_methods(tmp_path, ["a"], ["x"])
    records.write(tmp_path / "prompts" / "prompts.parquet", Prompt, [Prompt(id="p9", part="test", text="")])
    with pytest.raises(BadInput, match="prompts: no prompt has the id 'p0000' that both methods answer"):
        pairs(payloads)


def test_a_judge_reads_the_whole_chat_with_its_roles() -> None:
    assert whole_chat(Prompt(id="a", part="test", text="Plain.")) == "Plain."
    assert whole_chat(Prompt(id="a", part="test", text="…", messages=CHAT)) == "System: Be brief.\n\nUser: Why?"
    assert whole_chat(Prompt(id="a", part="test", text="…", messages=CHAT[1:])) == "Why?"


def test_the_null_model_answers_the_same_prompts_for_every_candidate(tmp_path: Path) -> None:
    instructions = ["x"] * 30
    one = pairs(write_methods(tmp_path / "one", [f"a{i}" for i in range(30)], ["r"] * 30, instructions))
    other = pairs(write_methods(tmp_path / "other", [f"b{i}" for i in range(30)], ["r"] * 30, instructions))
    chosen = [[pair.prompt.id for pair in canaries(side, 5, "No.")] for side in (one, list(reversed(other)))]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == 5
    assert {(p.candidate, p.candidate_method, p.canary) for p in canaries(one, 5, "No.")} == {("No.", NULL_MODEL, True)}
    assert len(canaries(one, 100, "No.")) == 30
    assert canaries(one, 5, "r") == []  # the reference's own answer would be no test
    assert canaries(one, 0, "No.") == []
