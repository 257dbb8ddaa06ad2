"""Reading the points of a comparison: what is read, and what is refused."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stages import records
from stages.errors import BadInput
from stages.records import Score
from sweeps.load import load_points, load_verdicts


@pytest.fixture
def entry(synthetic: ModuleType, tmp_path: Path) -> dict[str, Any]:
    values = {"validation": [1.0], "test": [2.0, 3.0]}
    return synthetic.write_point(tmp_path / "vas", method="vas", settings={"beta": 2.0}, proxy=values)


def test_a_point_has_its_scores_of_all_parts_and_its_verdicts_of_one(
    synthetic: ModuleType, tmp_path: Path, entry: dict[str, Any]
) -> None:
    verdicts = [synthetic.verdict("test-000", 2.0), synthetic.verdict("validation-000", 1.0, part="validation")]
    (found,) = load_points([entry | {"verdicts": synthetic.write_verdicts(tmp_path / "v", verdicts)}], "test")
    assert {part: len(rows) for part, rows in found.parts.items()} == {"validation": 1, "test": 2}
    assert [v.preference for v in found.verdicts] == [2.0]
    assert (found.trained, found.foresight, list(found.uncounted)) == (None, None, [])


def test_without_a_judge_there_are_no_verdicts(entry: dict[str, Any]) -> None:
    assert load_verdicts([entry, entry | {"verdicts": None}], "test") == [[], []]


def test_what_models_cost_to_train_comes_with_the_decoding(
    synthetic: ModuleType, tmp_path: Path, entry: dict[str, Any]
) -> None:
    (given,) = synthetic.with_costs([entry], tmp_path / "decode")
    (found,) = load_points([given], "test")
    assert [cost.model for cost in found.trained or ()] == ["Value model"]


def test_what_else_a_sweep_varied_becomes_a_setting_where_it_differs(entry: dict[str, Any]) -> None:
    points = [entry | {"varied": {"value.td_lambda": v, "seed": 0}} for v in (0.5, 1.0)]
    assert [p.settings for p in load_points(points, "test")] == [
        {"beta": 2.0, "value.td_lambda": 0.5}, {"beta": 2.0, "value.td_lambda": 1.0},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"label": None}, "points.0: has no 'label'"),
        ({"score": Path("nowhere")}, "points.0.score: nowhere/scores.parquet cannot be read: "),
        ({"decode": Path("nowhere")}, "points.0.decode: nowhere/trained.json does not exist; give a folder of stage"),
    ],
)
def test_a_point_that_cannot_be_read_is_refused_by_its_place(
    entry: dict[str, Any], changes: dict[str, Any], line: str
) -> None:
    given = {key: value for key, value in (entry | changes).items() if value is not None}
    with pytest.raises(BadInput) as refused:
        load_points([given], "test")
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


def test_nothing_to_compare_and_nothing_on_the_part_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="points: there is nothing to compare"):
        load_points([], "test")
    with pytest.raises(BadInput, match=r"report_part: vas .* has no scores on part 'final', only on test, validation"):
        load_points([entry], "final")


def test_a_point_without_gold_is_refused(entry: dict[str, Any]) -> None:
    path = entry["score"] / "scores.parquet"
    rows = [Score(**{**vars(s), "rewards": {"proxy": 1.0}}) for s in records.read(path, Score)]
    records.write(path, Score, rows)
    with pytest.raises(BadInput, match=r"points\.0\.score: .* was not scored by a reward named 'gold'"):
        load_points([entry], "test")
