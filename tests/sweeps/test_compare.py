"""The comparison stage: its table, its summary and its refusals."""

import csv
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stages import records
from stages.errors import BadInput
from stages.records import Score
from stages.runtime import Runtime
from sweeps.compare import Compare

COLUMNS = (
    "method,settings,prompts,samples,proxy,proxy_low,proxy_high,gold,gold_low,gold_high,kl,kl_low,kl_high,"
    "tokens_per_second,flops,seconds,kl_kind,tokens,train_flops,train_tokens,rollout_flops,rollout_tokens"
)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "comparison.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_one_row_a_point_with_exactly_these_columns(study: Path) -> None:
    assert (study / "comparison.csv").read_text().splitlines()[0] == COLUMNS
    rows = rows_of(study)
    assert [row["method"] for row in rows] == ["base", "bon", "bon", "vas", "vas", "vas", "vas"]
    assert [json.loads(row["settings"]).get("beta") for row in rows[3:]] == [1.0, 2.0, 4.0, 8.0]
    for row in rows:
        assert (row["prompts"], row["samples"]) == ("64", "64")
        for name in ("proxy", "gold", "kl"):
            assert float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"])


def test_the_figures_are_those_of_the_test_prompts(synthetic: ModuleType, tmp_path: Path) -> None:
    points = [
        synthetic.write_point(
            tmp_path / "a", method="base", settings={}, seconds=0.5,
            proxy={"validation": [9.0], "test": [1.0, 3.0]}, gold={"validation": [9.0], "test": [2.0, 6.0]},
        )
    ]  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=points).run(out)
    (row,) = rows_of(out)
    assert (float(row["proxy"]), float(row["gold"])) == (2.0, 4.0)
    assert float(row["seconds"]) == pytest.approx(1.0)  # 2 responses of half a second
    assert float(row["tokens_per_second"]) == pytest.approx(20.0)  # 2 · 10 tokens in 1 s
    assert float(row["flops"]) == pytest.approx(1e10)  # a response
    assert "One point only" in (out / "summary.txt").read_text()


def test_time_of_a_single_batch_gets_no_interval(synthetic: ModuleType, tmp_path: Path) -> None:
    # Every response carries the same share of one batch: an interval of width zero would claim a precision nobody saw.
    entry = synthetic.write_point(tmp_path / "a", method="base", settings={}, proxy={"test": [1.0, 3.0, 2.0]})
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=[entry]).run(out)
    seconds = json.loads((out / "comparison.json").read_text())["points"][0]["seconds"]
    assert (seconds["mean"], seconds["low"], seconds["high"]) == (1.5, None, None)


def test_a_method_without_kl_leaves_its_kl_columns_empty(synthetic: ModuleType, tmp_path: Path) -> None:
    values = {"validation": [1.0, 2.0], "test": [1.0, 2.0]}
    points = [
        synthetic.write_point(tmp_path / "a", method="base", settings={}, proxy=values),
        synthetic.write_point(
            tmp_path / "b", method="search", settings={"w": 4}, proxy=values, kl=math.nan, kl_kind="none"
        ),
    ]
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=points).run(out)
    row = rows_of(out)[1]
    assert (row["kl"], row["kl_low"], row["kl_high"]) == ("", "", "")
    assert "No KL is known for search" in (out / "report.html").read_text()
    json.loads((out / "comparison.json").read_text(), parse_constant=pytest.fail)  # no NaN in JSON


def test_over_optimisation_is_visible_and_does_not_get_chosen(study: Path) -> None:
    # The study's β = 8 has the highest proxy but less gold than β = 4, and its proxy is not clearly above β = 4's.
    content = json.loads((study / "comparison.json").read_text())
    strongest, chosen = content["points"][-1], content["points"][content["choices"][1]["point"]]
    assert chosen["settings"]["beta"] == 4.0
    assert strongest["proxy"]["mean"] > chosen["proxy"]["mean"]
    assert strongest["gold"]["mean"] < chosen["gold"]["mean"]


def test_the_summary_fits_a_terminal_and_marks_the_choice(study: Path) -> None:
    text = (study / "summary.txt").read_text()
    assert max(map(len, text.splitlines())) <= 118
    assert "\x1b" not in text
    (line,) = [line for line in text.splitlines() if "β = 4" in line and "[" in line and "chosen" not in line]
    assert line.startswith("*")
    (reference,) = [line for line in text.splitlines() if "n = 16" in line and "≤" in line]
    assert "r" in reference[:2]
    flat = " ".join(text.split())
    assert "vas (β = 4), chosen on 32 other prompts by proxy reward alone, earns 1.51 more gold reward than bon" in flat


def test_samples_of_a_prompt_count_as_one_observation(synthetic: ModuleType, tmp_path: Path) -> None:
    entry = synthetic.write_point(tmp_path / "a", method="base", settings={}, proxy={"test": [0.0, 1.0, 0.0, 1.0]})
    path = tmp_path / "a" / "scores.parquet"
    once = records.read(path, Score)
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=[entry]).run(out)
    records.write(path, Score, [Score(**{**vars(s), "sample": sample}) for s in once for sample in range(5)])
    again = tmp_path / "again"
    again.mkdir()
    Compare(points=[entry]).run(again)
    first, second = rows_of(out)[0], rows_of(again)[0]
    assert (first["samples"], second["samples"]) == ("4", "20")
    assert [first[k] for k in ("gold", "gold_low", "gold_high")] == [
        second[k] for k in ("gold", "gold_low", "gold_high")
    ]


def test_tracking_gets_the_verdict_and_both_tables(synthetic: ModuleType, tmp_path: Path) -> None:
    tables: dict[str, tuple[Any, Any]] = {}
    metrics: dict[str, float] = {}

    def table(name: str, columns: Any, rows: Any) -> None:
        tables[name] = (columns, rows)

    out = tmp_path / "out"
    out.mkdir()
    points = synthetic.write_study(tmp_path / "scores")
    Compare(points=points, runtime=Runtime(metrics=metrics.update, table=table)).run(out)
    assert metrics["vas/gold_low"] < metrics["vas/gold_difference"] < metrics["vas/gold_high"]
    assert ",".join(tables["comparison"][0]) == COLUMNS
    assert len(tables["comparison"][1]) == 7
    assert len(tables["generations"][1]) == 5 * 7


def test_the_base_comes_first_wherever_the_sweep_puts_it(synthetic: ModuleType, tmp_path: Path) -> None:
    points = synthetic.write_study(tmp_path / "scores")
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=[*points[1:], points[0]]).run(out)
    assert [row["method"] for row in rows_of(out)] == ["base", "bon", "bon", "vas", "vas", "vas", "vas"]


def test_the_order_of_the_points_changes_nothing_but_the_rows(synthetic: ModuleType, tmp_path: Path) -> None:
    points = synthetic.write_study(tmp_path / "scores")
    texts = []
    for number, order in enumerate((points, [points[0], *points[1:3], *reversed(points[3:])])):
        out = tmp_path / f"out{number}"
        out.mkdir()
        Compare(points=order).run(out)
        texts.append((out / "comparison.csv").read_text())
    assert texts[0] == texts[1]


def test_what_else_a_sweep_varied_is_a_setting_of_the_methods_that_it_changed(
    synthetic: ModuleType, tmp_path: Path
) -> None:
    """Two values at two strengths, and a base that neither touches: four names, two lines."""
    values = {"validation": [1.0, 2.0], "test": [1.0, 2.0]}
    entries = [
        synthetic.write_point(
            tmp_path / f"{beta}-{td}", method="vas", settings={"beta": beta}, proxy=values, kl=beta + td
        )
        | {"varied": {"value.td_lambda": td}}
        for beta in (1.0, 2.0)
        for td in (0.5, 1.0)
    ]
    base = synthetic.write_point(tmp_path / "base", method="base", settings={}, proxy=values)
    Compare(points=[*entries, base | {"varied": {"value.td_lambda": 1.0}}]).run(tmp_path)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert [point["name"] for point in content["points"]] == [
        "base",
        "vas (β = 1, value.td_lambda = 0.5)",
        "vas (β = 1, value.td_lambda = 1)",
        "vas (β = 2, value.td_lambda = 0.5)",
        "vas (β = 2, value.td_lambda = 1)",
    ]
    assert sorted(curve["points"] for curve in content["curves"]) == [[0], [1, 3], [2, 4]]
    assert json.loads(rows_of(tmp_path)[1]["settings"]) == {"beta": 1.0, "value.td_lambda": 0.5}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"points": []}, "points: there is nothing to compare"),
        ({"draws": 10}, "draws: 10 are too few for a 95 % interval; 1,000 at least"),
        ({"select_part": "test"}, "select_part: 'test' is also the part of the report; choose on another one"),
        ({"report_part": "final"}, "has no scores on part 'final', only on test, validation"),
        ({"reference": "bonn"}, "reference: 'bonn' is no method of this comparison; it has base"),
        ({"points": [{"label": "a", "method": "base", "settings": {}}]}, "points.0: has no 'score'"),
    ],
)
def test_bad_input_is_one_line(synthetic: ModuleType, tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    values = {"validation": [1.0], "test": [1.0]}
    points = [synthetic.write_point(tmp_path / "a", method="base", settings={}, proxy=values)]
    with pytest.raises(BadInput) as raised:
        Compare(**{"points": points, **changes}).run(tmp_path)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_scores_without_gold_are_refused(synthetic: ModuleType, tmp_path: Path) -> None:
    entry = synthetic.write_point(tmp_path / "a", method="base", settings={}, proxy={"test": [1.0]})
    (score,) = records.read(tmp_path / "a" / "scores.parquet", Score)
    records.write(tmp_path / "a" / "scores.parquet", Score, [Score(**{**vars(score), "rewards": {"proxy": 1.0}})])
    with pytest.raises(BadInput, match=r"points\.0\.score: .* was not scored by a reward named 'gold'"):
        Compare(points=[entry]).run(tmp_path)


def chunk(beams: int, successors: int, length: int) -> dict[str, Any]:
    return {"token_by": "implicit", "beams": beams, "successors": successors, "chunk": length}


def test_searches_without_a_kl_stand_in_the_order_of_their_settings_and_whole_in_the_summary(
    synthetic: ModuleType, tmp_path: Path
) -> None:
    """At equal W·K their compute differs by chance alone, which is no order."""
    settings = [chunk(4, 2, 5), chunk(1, 8, 10), chunk(1, 8, 2), chunk(2, 4, 5)]
    given = [("base", {}, (0.0, 0.9, 0.0, "exact"))]
    given += [("ivg", s, (2.0, 2.5, math.nan, "none")) for s in settings]
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=synthetic.write_study(tmp_path / "scores", given=given)).run(out)
    found = [json.loads(row["settings"]) for row in rows_of(out)[1:]]
    assert [(s["beams"], s["chunk"]) for s in found] == [(1, 2), (1, 10), (2, 5), (4, 5)]
    text = (out / "summary.txt").read_text()
    assert max(map(len, text.splitlines())) <= 118
    assert text.count("successors = ") == 4 + text.split("chosen by")[1].count("successors = ")
    assert "…" not in text
