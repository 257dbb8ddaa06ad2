"""The comparison as a table of plain values."""

import csv
from pathlib import Path

import numpy as np

from stages.records import Score
from stages.statistics.interval import Interval
from stages.training_cost import TrainingCost
from sweeps.figures import Figures
from sweeps.judged_points import JudgedPoints, Judgement
from sweeps.points import Point
from sweeps.table import COLUMNS, JUDGE_COLUMNS, columns, rows, settings_text, write_csv

ONE = Interval(1.0, 0.5, 1.5, 0.25, 8)
FIGURES = Figures(8, *[ONE] * 11)
NOTHING = Interval(np.nan, np.nan, np.nan, np.nan, 8)
SCORE = Score(
    prompt_id="a", part="test", sample=0, method="vas", settings="{}", prompt="", text="", rewards={}, kl=1.0,
    kl_kind="exact", logprob=-1.0, base_logprob=-2.0, length=10, finished=True, distinct_2=1.0, repetition=0.0,
    tokens=20, flops=100.0, seconds=0.5,
)  # fmt: skip


def judged(name: str, *points: Judgement | None) -> JudgedPoints:
    return JudgedPoints(name, "base", points, tuple({} for _ in points), None)


def judgement(length_controlled: Interval | None = None) -> Judgement:
    return Judgement(ONE, length_controlled, (), 16, {"refusal": 2, "empty": 1}, 40.0, 60.0, None, 5.0, False)


def test_a_row_has_a_cell_for_every_column_and_none_where_there_is_no_figure() -> None:
    figures = Figures(**{**vars(FIGURES), "kl": NOTHING})
    trained = [TrainingCost(model="Value model", train_flops=5.0)]
    points = [Point("a", "vas", {"beta": 2.0}, [SCORE], trained=trained), Point("b", "bon", {}, [SCORE])]
    found = [dict(zip(COLUMNS, row, strict=True)) for row in rows(points, [figures, figures], [])]
    assert [(row["method"], row["settings"], row["prompts"], row["samples"]) for row in found] == [
        ("vas", '{"beta": 2.0}', 8, 8), ("bon", "{}", 8, 8),
    ]  # fmt: skip
    assert (found[0]["gold_low"], found[0]["kl"], found[0]["kl_kind"]) == (0.5, None, "exact")
    assert [row["train_flops"] for row in found] == [5.0, None]  # nobody says what the second one cost


def test_several_judges_have_their_names_before_their_columns() -> None:
    one, other = judged("strict", judgement(ONE)), judged("kind", None)
    assert columns([one]) == COLUMNS + JUDGE_COLUMNS
    header = columns([one, other])
    (row,) = rows([Point("a", "vas", {}, [SCORE])], [FIGURES], [one, other])
    found = dict(zip(header, row, strict=True))
    assert (found["strict/win_rate"], found["strict/lc_win_rate_high"], found["strict/failed"]) == (1.0, 1.5, 3)
    assert (found["strict/win_rate_worst"], found["strict/swap_consistency"]) == (40.0, None)
    assert {found[f"kind/{column}"] for column in JUDGE_COLUMNS} == {None}


def test_the_file_is_what_a_csv_reader_reads(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["method", "settings", "kl"], [["vas", settings_text({"β": 1, "t": "a,b"}), None]])
    assert (tmp_path / "a.csv").read_bytes().count(b"\r") == 0
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.DictReader(stream)) == [{"method": "vas", "settings": '{"β": 1, "t": "a,b"}', "kl": ""}]
