"""Everything that a comparison says, as plain JSON."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from stages.statistics.interval import Interval
from sweeps.choice import choose, differences, reference_point
from sweeps.content import Rules, Study, _plain, describe
from sweeps.figures import figures
from sweeps.judged_points import judge_points
from sweeps.load import load_points

RULES = Rules(select_part="validation", report_part="test", slack=0.0, draws=1000, seed=0, shown=2)


def study_of(entries: list[dict[str, Any]]) -> Study:
    points = load_points(entries, "test")
    chosen = choose(points, "validation")
    against = reference_point(points, "bon", "test")
    assert against is not None
    return Study(
        points=points,
        measured=[figures(point, "test", draws=1000, seed=0) for point in points],
        judges=judge_points([point.verdicts for point in points], draws=1000, seed=0),
        chosen=chosen,
        against=against,
        found=differences(points, chosen, against, "test", draws=1000, seed=0),
        foresight=[],
        lineage=[{"stage": "score", "key": "k", "inputs": (), "seconds": 1.0, "reused": False}],
    )


def test_points_are_named_by_their_place_and_figures_keep_their_intervals(
    synthetic: ModuleType, tmp_path: Path
) -> None:
    study = study_of(synthetic.write_study(tmp_path, prompts=12))
    content = describe(study, RULES)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert (content["prompts"], content["reference"], content["report_part"]) == (12, 2, "test")
    assert content["points"][5]["name"] == "vas (β = 4)"
    gold, measured = content["points"][5]["gold"], study.measured[5].gold
    assert gold == {
        "mean": measured.value, "low": measured.low, "high": measured.high,
        "standard_error": measured.standard_error, "prompts": 12,
    }  # fmt: skip
    (vas,) = (choice for choice in content["choices"] if choice["method"] == "vas")
    assert content["points"][vas["point"]]["chosen"] is True
    assert [d["reference"] for d in content["differences"]] == [2] * len(content["differences"])
    assert content["lineage"][0]["inputs"] == []
    assert (content["judges"], content["agreements"]) == ([], [])


def test_the_same_few_prompts_are_answered_by_every_point(synthetic: ModuleType, tmp_path: Path) -> None:
    study = study_of(synthetic.write_study(tmp_path, prompts=12))
    shown = describe(study, RULES)["generations"]
    assert len(shown) == RULES.shown
    assert all(len(entry["responses"]) == len(study.points) for entry in shown)
    for entry in shown:
        (score,) = (s for s in study.points[3].scores if s.prompt_id == entry["prompt_id"])
        assert entry["responses"][3]["text"] == score.text
    other = describe(study, Rules(**{**vars(RULES), "seed": 5}))["generations"]
    assert [e["prompt_id"] for e in other] != [e["prompt_id"] for e in shown]


def test_json_has_null_for_what_is_no_finite_number() -> None:
    value = {"a": np.nan, "b": (1, True, None, float("inf")), 3: Path("x"), "i": Interval(1.0, np.nan, 2.0, 0.5, 4)}
    assert _plain(value) == {
        "a": None, "b": [1, True, None, None], "3": "x",
        "i": {"mean": 1.0, "low": None, "high": 2.0, "standard_error": 0.5, "prompts": 4},
    }  # fmt: skip
