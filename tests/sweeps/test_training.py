"""What training cost stands beside what decoding costs, in the table, the summary and the page."""

import csv
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stages.errors import BadInput
from sweeps.compare import Compare


def compare(points: list[dict[str, Any]], out: Path, **settings: Any) -> dict[str, Any]:
    out.mkdir()
    Compare(points=points, **settings).run(out)
    return json.loads((out / "comparison.json").read_text())


@pytest.fixture(scope="module")
def page(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic study and an ivg point, whose two models learnt from the rollouts that vas learnt from."""
    root = tmp_path_factory.mktemp("training")
    given = [*synthetic.POINTS, ("ivg", {"beams": 2, "successors": 4, "chunk": 5}, (2.5, 3.0, float("nan"), "none"))]
    points = synthetic.with_costs(synthetic.write_study(root / "scores", given=given), root / "decode")
    compare(points, root / "out")
    return root / "out"


def test_the_table_says_what_each_method_s_models_cost(page: Path) -> None:
    with (page / "comparison.csv").open(newline="") as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream)}
    names = ("train_flops", "train_tokens", "rollout_flops", "rollout_tokens")
    assert [float(rows["base"][name]) for name in names] == [0, 0, 0, 0]
    assert [float(rows["bon"][name]) for name in names] == [0, 0, 0, 0]
    assert [float(rows["vas"][name]) for name in names] == [2.2e13, 90112, 3.1e13, 90112]
    # Two models, 2.2 + 6.0 and 90,112 + 88,000; the rollouts that both learnt from were drawn once.
    assert [float(rows["ivg"][name]) for name in names] == [8.2e13, 178112, 3.1e13, 90112]
    assert float(rows["ivg"]["tokens"]) > 6 * float(rows["base"]["tokens"])
    assert (rows["ivg"]["kl_kind"], rows["bon"]["kl_kind"]) == ("none", "bound")


def test_the_summary_names_the_models_and_whom_they_serve(page: Path) -> None:
    text = (page / "summary.txt").read_text()
    assert max(map(len, text.splitlines())) <= 118
    (line,) = [line for line in text.splitlines() if line.startswith("Value model ")]
    assert line.split() == ["Value", "model", "2.2e13", "90,112", "3.1e13", "90,112", "vas"]
    assert "Value model, Fine-tuned policy" in text


def test_the_page_sets_training_beside_decoding(page: Path) -> None:
    html = (page / "report.html").read_text()
    assert "2.2 × 10<sup>13</sup></td><td>90,112</td><td>3.1 × 10<sup>13</sup>" in html
    assert html.count("<td>0</td><td>0</td><td>0</td>") == 3  # base and two of bon
    assert "Trained here: Value model for vas; Value model, Fine-tuned policy for ivg." in html


def test_points_that_nobody_speaks_for_have_a_dash_and_not_a_zero(synthetic: ModuleType, tmp_path: Path) -> None:
    content = compare(synthetic.write_study(tmp_path / "scores"), tmp_path / "out")
    assert [point["training"] for point in content["points"]] == [None] * 7
    with (tmp_path / "out" / "comparison.csv").open(newline="") as stream:
        assert {row["train_flops"] for row in csv.DictReader(stream)} == {""}
    assert "trained beyond" not in (tmp_path / "out" / "summary.txt").read_text()


def test_a_folder_of_another_stage_is_refused(synthetic: ModuleType, tmp_path: Path) -> None:
    (first, *_) = synthetic.write_study(tmp_path / "scores")
    with pytest.raises(BadInput, match=r"points\.0\.decode: .*trained\.json does not exist; give a folder of"):
        compare([first | {"decode": tmp_path}], tmp_path / "out")


def test_kl_before_truncation_is_drawn_and_said_to_be_that(synthetic: ModuleType, tmp_path: Path) -> None:
    given = [
        ("base", {}, (0.0, 0.9, 0.0, "exact")),
        ("dpo", {"beta": 0.5}, (0.8, 1.6, 0.9, "untruncated")),
        ("dpo", {"beta": 0.05}, (2.2, 2.9, 7.8, "untruncated")),
    ]
    content = compare(synthetic.write_study(tmp_path / "scores", given=given), tmp_path / "out")
    assert [round(point["kl"]["mean"]) for point in content["points"]] == [0, 1, 8]
    assert [curve["points"] for curve in content["curves"]] == [[0], [2, 1]]
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count("<small>before truncation</small>") == 2
    assert "dpo: KL before truncation, at the same temperature and at the states visited." in html
    text = (tmp_path / "out" / "summary.txt").read_text()
    assert text.count(" ~ ") >= 2
    assert "~ before truncation" in text


def test_a_reward_that_does_not_say_what_scoring_takes_is_named(synthetic: ModuleType, tmp_path: Path) -> None:
    """Of the seven points the two of bon were selected by it; the others' FLOPs are whole."""
    points = synthetic.with_costs(synthetic.write_study(tmp_path / "scores"), tmp_path / "decode")
    compare(points, tmp_path / "whole")
    for point in points:
        if point["method"] == "bon":
            (point["decode"] / "uncounted.json").write_text('["Brevity"]')
    compare(points, tmp_path / "out")
    said = " Brevity does not say what scoring takes and counts as free for bon."
    assert f"the reward that selects among them.{said}</p>" in (tmp_path / "out" / "report.html").read_text()
    assert "the reward that selects among them.</p>" in (tmp_path / "whole" / "report.html").read_text()
