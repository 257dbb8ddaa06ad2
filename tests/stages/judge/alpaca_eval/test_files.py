"""AlpacaEval's two files, written and read back."""

import json

import pytest

from stages.errors import BadInput
from stages.judge.alpaca_eval.files import (
    Annotation,
    ModelOutput,
    read_annotations,
    read_outputs,
    write_annotations,
    write_outputs,
)

RIVER, JOKE = "Name a river.", "Tell a joke."
CANDIDATES = [ModelOutput(JOKE, "No.", "new", "helpful"), ModelOutput(RIVER, "Danube", "new", "helpful")]
ANNOTATIONS = [
    Annotation(RIVER, "The Rhine.", "Danube", "old", "new", 1.25),
    Annotation(JOKE, "Knock, knock.", "No.", "old", "new", None),
]


def test_model_outputs_survive_the_file(tmp_path):
    outputs = [*CANDIDATES, ModelOutput('Quote "ü"\n', "x" * 100_000, "new", "")]
    write_outputs(tmp_path / "model_outputs.json", outputs)
    assert read_outputs(tmp_path / "model_outputs.json") == outputs


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not JSON"),
        ("{}", "not a list of records"),
        ("[1]", "not a list of records"),
        ('[{"instruction": "a", "generator": "g"}]', "row 0: 'output' is missing"),
        ('[{"instruction": "a", "output": 3, "generator": "g"}]', "row 0: 'output' is not text"),
        (json.dumps([{"instruction": "a", "output": "b", "generator": "g"}] * 2), "1 more than once: 'a'"),
        (
            json.dumps([{"instruction": g, "output": "b", "generator": g} for g in "gh"]),
            r"2 generators \(g, h\); one file holds one model",
        ),
    ],
)
def test_files_that_are_no_model_outputs_are_refused_in_one_line(tmp_path, content, problem):
    path = tmp_path / "model_outputs.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=problem) as caught:
        read_outputs(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        read_outputs(tmp_path / "nothing.json")


def test_rows_with_the_candidate_on_the_left_are_turned_round(tmp_path):
    turned = Annotation(RIVER, "Danube", "The Rhine.", "new", "old", 1.75)
    write_annotations(tmp_path / "annotations.json", [turned, ANNOTATIONS[1]])
    assert read_annotations(tmp_path / "annotations.json", candidate="new") == ANNOTATIONS
    with pytest.raises(BadInput, match="candidate: row 0 compares 'new' with 'old', not 'newer'"):
        read_annotations(tmp_path / "annotations.json", candidate="newer")


@pytest.mark.parametrize(
    ("preference", "expected"), [("0", 1.5), ("1.5", 1.5), ("2", 2.0), ("null", None), ("NaN", None)]
)
def test_preferences_as_alpaca_eval_writes_them(tmp_path, preference, expected):
    path = tmp_path / "annotations.json"
    write_annotations(path, ANNOTATIONS[:1])
    path.write_text(path.read_text().replace("1.25", preference))
    assert read_annotations(path)[0].preference == expected


@pytest.mark.parametrize("preference", ["0.5", "3", '"1"', "true"])
def test_other_preferences_are_refused(tmp_path, preference):
    path = tmp_path / "annotations.json"
    write_annotations(path, ANNOTATIONS[:1])
    path.write_text(path.read_text().replace("1.25", preference))
    with pytest.raises(BadInput, match=r"row 0: preference .* is not in 1…2"):
        read_annotations(path)
