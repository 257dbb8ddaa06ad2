"""AlpacaEval's files, there and back."""

import dataclasses
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import records
from stages.errors import BadInput
from stages.judge.alpaca_eval.conversion import (
    annotations_from_verdicts,
    last_question,
    outputs_from_records,
    prompt_id,
    records_from_outputs,
    verdicts_from_annotations,
)
from stages.judge.alpaca_eval.files import (
    Annotation,
    ModelOutput,
    read_annotations,
    read_outputs,
    write_annotations,
    write_outputs,
)
from stages.judge.verdicts.order import CANDIDATE_FIRST, REFERENCE_FIRST, seeded_order
from stages.judge.verdicts.outcomes import FAILURES, UNREADABLE
from stages.judge.verdicts.summary import summary
from stages.records import Generation, Prompt, Verdict

ALPACA = os.environ.get("TILT_ALPACA_DATA", "")
needs_alpaca = pytest.mark.skipif(not ALPACA, reason="TILT_ALPACA_DATA is not set: AlpacaEval's verdicts are not here")

RIVER, JOKE = "Name a river.", "Tell a joke."
REFERENCES = [ModelOutput(RIVER, "The Rhine.", "old", "helpful"), ModelOutput(JOKE, "Knock, knock.", "old", "helpful")]
CANDIDATES = [ModelOutput(JOKE, "No.", "new", "helpful"), ModelOutput(RIVER, "Danube", "new", "helpful")]
ANNOTATIONS = [
    Annotation(RIVER, "The Rhine.", "Danube", "old", "new", 1.25),
    Annotation(JOKE, "Knock, knock.", "No.", "old", "new", None),
]


def generation(prompt: str, text: str, **changes) -> Generation:
    values = {
        "prompt_id": prompt, "sample": 0, "token_ids": [5, 2], "text": text, "logprob": -1.0, "finished": True,
        "part": "test", "method": "vas", "settings": "{}", "base_logprob": -1.2, "kl": 0.2, "kl_kind": "exact",
        "tokens": 9, "flops": 1e6, "seconds": 0.1,
    }  # fmt: skip
    return Generation(**{**values, **changes})


def verdict(prompt: str, preference: float | None, **changes) -> Verdict:
    (made,) = verdicts_from_annotations([Annotation(prompt, "", "", "old", "new", preference)], "gpt")
    return dataclasses.replace(made, **{"prompt_id": prompt, **changes})


# --- model_outputs.json -----------------------------------------------------------------------------------------------


def test_our_generations_become_model_outputs():
    prompts = [
        Prompt(id="p1", part="test", text="<user>Name a river.", messages=[{"role": "user", "content": RIVER}]),
        Prompt(id="p2", part="test", text="Movie review: A tired", opening="A tired"),
    ]
    made = [generation("p2", " sequel."), generation("p1", " The Po.\n")]
    assert outputs_from_records(made, prompts, "tilted", datasets={"p1": "helpful_base"}) == [
        ModelOutput("Movie review: A tired", "A tired sequel.", "tilted", "test"),
        ModelOutput(RIVER, "The Po.", "tilted", "helpful_base"),
    ]


def test_the_last_question_a_chat_is_the_last_user_message():
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": JOKE},
    ]
    assert last_question(Prompt(id="a", part="test", text="…", messages=chat)) == JOKE


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, unique_by=lambda pair: pair[0]))
def test_imported_outputs_go_back_out_unchanged(pairs):
    outputs = [ModelOutput(instruction, output, "new", "test") for instruction, output in pairs]
    prompts, generations = records_from_outputs(outputs)
    assert outputs_from_records(generations, prompts, "new") == outputs


def test_imported_records_survive_parquet(tmp_path):
    prompts, generations = records_from_outputs(CANDIDATES)
    records.write(tmp_path / "prompts.parquet", Prompt, prompts)
    records.write(tmp_path / "generations.parquet", Generation, generations)
    back = records.read(tmp_path / "generations.parquet", Generation)
    assert [g.text for g in back] == ["No.", "Danube"]
    assert math.isnan(back[0].kl)
    assert records.read(tmp_path / "prompts.parquet", Prompt) == prompts


def test_imported_outputs_find_your_own_prompts_by_instruction():
    mine = [Prompt(id="x", part="validation", text=RIVER), Prompt(id="y", part="validation", text=JOKE)]
    prompts, generations = records_from_outputs(CANDIDATES, prompts=mine)
    assert [g.prompt_id for g in generations] == ["y", "x"]
    assert {g.part for g in generations} == {"validation"}
    assert prompts == mine[::-1]
    with pytest.raises(BadInput, match=r"prompts: 1 not among the prompts: 'Name a river\.'"):
        records_from_outputs(CANDIDATES, prompts=mine[1:])


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ([generation("p9", "a")], "generations: 1 without a prompt: 'p9'"),
        ([generation("p1", "a"), generation("p1", "b", sample=1)], "choose a sample and a method: 'p1'"),
        ([generation("p1", "a"), generation("p2", "b")], r"prompts: 1 asked by several prompts.*'Name a river\.'"),
    ],
)
def test_generations_that_are_not_one_a_prompt_are_refused(made, problem):
    prompts = [Prompt(id="p1", part="test", text=RIVER), Prompt(id="p2", part="test", text=RIVER)]
    with pytest.raises(BadInput, match=problem):
        outputs_from_records(made, prompts, "tilted")


# --- annotations.json -------------------------------------------------------------------------------------------------


def test_annotations_survive_the_file_and_the_records(tmp_path):
    write_annotations(tmp_path / "annotations.json", ANNOTATIONS)
    read = read_annotations(tmp_path / "annotations.json")
    assert read == ANNOTATIONS
    verdicts = verdicts_from_annotations(read, "gpt-4")
    records.write(tmp_path / "verdicts.parquet", Verdict, verdicts)
    back = records.read(tmp_path / "verdicts.parquet", Verdict)
    instructions = {prompt_id(text): text for text in (RIVER, JOKE)}
    assert annotations_from_verdicts(back, CANDIDATES, REFERENCES, instructions) == ANNOTATIONS


def test_an_annotation_without_a_preference_is_a_counted_failure():
    verdicts = verdicts_from_annotations(ANNOTATIONS, "gpt-4")
    assert [v.outcome for v in verdicts] == ["verdict", UNREADABLE]
    assert UNREADABLE in FAILURES
    figures = summary(verdicts)
    assert figures["failures"] == 1
    assert (figures["win_rate_low"], figures["win_rate_high"]) == (12.5, 62.5)  # .25 and 0, .25 and 1


def test_imported_verdicts_carry_the_order_that_the_judge_saw_where_it_is_known():
    (first, _) = verdicts_from_annotations(ANNOTATIONS, "gpt-4")
    assert first.order == (CANDIDATE_FIRST if seeded_order(RIVER) else REFERENCE_FIRST)
    assert (first.candidate_chars, first.reference_chars) == (len("Danube"), len("The Rhine."))
    assert verdicts_from_annotations(ANNOTATIONS, "gpt-4", seeded=False)[0].order == "either"


def test_two_orders_become_their_mean_preference_and_the_canary_stays_at_home():
    verdicts = [
        verdict("p1", 1.2, order=REFERENCE_FIRST),
        verdict("p1", 1.6, order=CANDIDATE_FIRST),
        verdict("p1", 1.0, canary=True, candidate="null model"),
        verdict("p2", 2.0, order=REFERENCE_FIRST),
        verdict("p2", None, order=CANDIDATE_FIRST, outcome=UNREADABLE),
    ]
    made = annotations_from_verdicts(verdicts, CANDIDATES, REFERENCES, {"p1": RIVER, "p2": JOKE})
    assert [(a.instruction, a.preference) for a in made] == [(RIVER, pytest.approx(1.4)), (JOKE, 2.0)]
    assert (made[0].output_1, made[0].output_2) == ("The Rhine.", "Danube")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"verdicts": [verdict("p1", 1.0), verdict("p1", 1.0, judge="other")]}, "2 judges"),
        ({"verdicts": [verdict("p1", 1.0), verdict("p1", 1.0, sample=1)]}, "verdicts: 1 with several samples"),
        ({"instructions": {}}, "verdicts: 1 without an instruction: 'p1'"),
        ({"candidates": CANDIDATES[:1]}, r"candidates: 1 without a candidate's output: 'Name a river\.'"),
        ({"references": []}, r"references: 1 without a reference output: 'Name a river\.'"),
    ],
)
def test_verdicts_that_make_no_annotations_are_refused(changes, problem):
    arguments = {
        "verdicts": [verdict("p1", 1.0)],
        "candidates": CANDIDATES,
        "references": REFERENCES,
        "instructions": {"p1": RIVER},
        **changes,
    }
    with pytest.raises(BadInput, match=problem):
        annotations_from_verdicts(**arguments)


def test_annotations_of_unknown_prompts_are_named():
    with pytest.raises(BadInput, match=r"prompts: 1 not among the prompts: 'Tell a joke\.'"):
        verdicts_from_annotations(ANNOTATIONS, "gpt-4", prompt_ids={RIVER: "p1"})


# --- a real file ------------------------------------------------------------------------------------------------------


@needs_alpaca
def test_a_published_file_of_model_outputs_goes_through_our_records_and_back(tmp_path):
    outputs = read_outputs(Path(ALPACA) / "model_outputs_alpaca-7b.json")
    assert len(outputs) == 805
    prompts, generations = records_from_outputs(outputs)
    assert len({prompt.id for prompt in prompts}) == 805
    datasets = {prompt.id: output.dataset for prompt, output in zip(prompts, outputs, strict=True)}
    back = outputs_from_records(generations, prompts, "alpaca-7b", datasets)
    write_outputs(tmp_path / "model_outputs.json", back)
    assert read_outputs(tmp_path / "model_outputs.json") == outputs
