"""What judges add to a comparison: win rates by hand, what is missing, what is refused."""

import csv
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stages.errors import BadInput
from sweeps.compare import Compare
from sweeps.judged_points import judge_agreements, judge_points
from sweeps.load import load_verdicts
from sweeps.table import COLUMNS, JUDGE_COLUMNS

DRAWS: dict[str, Any] = {"draws": 1000, "seed": 0}


@pytest.fixture(scope="module")
def judged_study(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The payload of Compare over the synthetic study with one judge."""
    root = tmp_path_factory.mktemp("judged")
    points = synthetic.judged(synthetic.write_study(root / "scores"), root / "verdicts")
    out = root / "out"
    out.mkdir()
    Compare(points=points).run(out)
    return out


def test_a_win_rate_by_hand(synthetic: ModuleType) -> None:
    verdicts = [
        synthetic.verdict("a", 2.0), synthetic.verdict("a", 2.0, order="candidate_first"),
        synthetic.verdict("b", 2.0), synthetic.verdict("b", 1.0, order="candidate_first"),
        synthetic.verdict("c", 1.5), synthetic.verdict("c", None, order="candidate_first"),
        synthetic.verdict("d", 1.0), synthetic.verdict("d", 1.0, order="candidate_first"),
    ]  # fmt: skip
    (judged,) = judge_points([verdicts], **DRAWS)
    (found,) = judged.points
    assert found is not None
    # a: 100, b: 50, c: 50 (one verdict failed), d: 0
    assert judged.rates[0] == {"a": 100.0, "b": 50.0, "c": 50.0, "d": 0.0}
    assert (found.win_rate.value, found.win_rate.items) == (50.0, 4)
    # c with its failed verdict lost: 25; won: 75
    assert (found.worst, found.best) == (43.75, 56.25)
    assert (found.verdicts, found.failures) == (8, {"refusal": 1})
    # a and d have one winner in both orders, b has not; c was seen in one order only. Second place gains b a whole win.
    assert found.swap_consistency == pytest.approx(100 * 2 / 3)
    assert found.position_effect == pytest.approx(100 / 3)
    assert found.length_controlled is None  # lengths never differ
    assert (judged.judge, judged.reference, judged.canary) == ("careful", "base", None)


def test_samples_of_a_prompt_count_as_one_observation(synthetic: ModuleType) -> None:
    once = [synthetic.verdict(f"p{i:02}", 1.0 + i % 2) for i in range(20)]
    often = [synthetic.verdict(f"p{i:02}", 1.0 + i % 2, sample=sample) for i in range(20) for sample in range(9)]
    (one,), (nine,) = (judge_points([rows], **DRAWS)[0].points for rows in (once, often))
    assert one is not None
    assert nine is not None
    assert one.win_rate == nine.win_rate
    assert one.win_rate.high - one.win_rate.low > 30  # √(0.5² / 20) = 11 points, times 2 · 1.96


def test_wins_by_length_alone_are_gone_at_equal_length(synthetic: ModuleType) -> None:
    # The longer response wins with probability 0.9, whoever wrote it; the candidate's is the longer one on ¾.
    draw = np.random.default_rng(0)
    verdicts = []
    for i in range(400):
        longer = i % 4 != 0
        wins = draw.random() < (0.9 if longer else 0.1)
        chars = 100 + (1 if longer else -1) * int(draw.integers(30, 50))
        verdicts.append(synthetic.verdict(f"p{i:03}", 1.0 + wins, candidate_chars=chars))
    (found,) = judge_points([verdicts], **DRAWS)[0].points
    assert found is not None
    assert found.length_controlled is not None
    assert found.win_rate.value == pytest.approx(70, abs=5)  # ¾ · 90 + ¼ · 10
    assert found.length_controlled.low < 50 < found.length_controlled.high
    assert found.length_controlled.high < 65


def test_the_reference_itself_gets_no_win_rate_of_its_own(judged_study: Path) -> None:
    content = json.loads((judged_study / "comparison.json").read_text())
    (judged,) = content["judges"]
    assert judged["points"][0]["itself"] is True
    lines = (judged_study / "summary.txt").read_text().splitlines()
    bases = [line for line in lines if line.strip().startswith("base")]
    assert len(bases) == 2
    assert "itself" in bases[1]
    assert "50" not in bases[1]
    assert "same responses as base" in (judged_study / "report.html").read_text()


def test_a_judge_adds_columns_behind_those_of_every_comparison(judged_study: Path) -> None:
    with (judged_study / "comparison.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == COLUMNS + JUDGE_COLUMNS
    assert {row["verdicts"] for row in rows} == {"128"}  # 64 test prompts in two orders
    for row in rows[1:]:
        low, high, worst, best = (float(row[f"win_rate_{name}"]) for name in ("low", "high", "worst", "best"))
        assert low < float(row["win_rate"]) < high
        assert worst <= float(row["win_rate"]) <= best
        assert (worst == best) == (row["failed"] == "0")
    # The study's judge follows gold: its best point is not the one with the highest proxy alone.
    assert float(rows[5]["win_rate"]) > float(rows[3]["win_rate"])


def test_the_terminal_shows_the_judge_beside_the_rewards_and_in_a_table_of_its_own(judged_study: Path) -> None:
    text = (judged_study / "summary.txt").read_text()
    assert max(map(len, text.splitlines())) <= 118
    content = json.loads((judged_study / "comparison.json").read_text())
    found = content["judges"][0]["points"][5]
    shown = f"{found['win_rate']['mean']:.1f} [{found['win_rate']['low']:.1f}, {found['win_rate']['high']:.1f}]"
    lines = [line for line in text.splitlines() if "β = 4" in line and "chosen" not in line]
    assert [shown in line for line in lines] == [True, True]
    assert f"{sum(found['failures'].values())} of 128" in lines[1]
    assert f"{found['worst']:.1f} … {found['best']:.1f}" in lines[1]
    assert "judge careful, every point against base" in text
    assert "† unreliable" in text
    flat = " ".join(text.split())
    assert "By the judge careful, vas (β = 8) wins" in flat
    assert "of its comparisons with base." in flat


def test_the_report_shows_the_paired_difference_of_win_rates(judged_study: Path) -> None:
    page = (judged_study / "report.html").read_text()
    content = json.loads((judged_study / "comparison.json").read_text())
    steered = next(d for d in content["differences"] if content["points"][d["point"]]["method"] == "vas")
    (found,) = steered["judges"]
    ours, theirs = (content["judges"][0]["points"][steered[side]] for side in ("point", "reference"))
    assert found["mean"] == pytest.approx(ours["win_rate"]["mean"] - theirs["win_rate"]["mean"])
    assert f"{found['mean']:+.2f} <small>[{found['low']:+.2f}, {found['high']:+.2f}]" in page
    assert "What the judge says" in page
    assert "A null model that answers everything alike wins 0 % of 20 prompts (up to 16 % by chance): it loses" in page


def test_a_null_model_that_wins_is_called_out(synthetic: ModuleType, tmp_path: Path) -> None:
    points = synthetic.judged(synthetic.write_study(tmp_path / "scores"), tmp_path / "verdicts")
    null = [synthetic.verdict(f"test-{i:03}", 2.0, candidate="null model", canary=True) for i in range(20)]
    real = [synthetic.verdict(f"test-{i:03}", 2.0) for i in range(20)]
    for point in points:
        synthetic.write_verdicts(Path(point["verdicts"]), null + real)
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=points).run(out)
    page = (out / "report.html").read_text()
    assert "wins 100 % of 20 prompts (up to 100 % by chance): it does not clearly lose: distrust this judge" in page


def test_without_a_judge_nothing_of_it_is_shown(study: Path) -> None:
    assert (study / "comparison.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert "judge" not in (study / "summary.txt").read_text()
    assert "What the judge says" not in (study / "report.html").read_text()


def test_several_judges_stand_side_by_side_and_a_point_may_lack_one(synthetic: ModuleType, tmp_path: Path) -> None:
    values = {"validation": [1.0, 2.0], "test": [1.0, 2.0]}
    points = []
    for method in ("base", "vas"):
        point = synthetic.write_point(tmp_path / method, method=method, settings={}, proxy=values)
        points.append(point)
    verdicts = [
        synthetic.verdict(f"test-{i:03}", preference, judge=judge)
        for judge, preferences in (("strict", [1.0, 1.0]), ("<b>kind</b>", [2.0, 1.0]))
        for i, preference in enumerate(preferences)
    ]
    points[1]["verdicts"] = synthetic.write_verdicts(tmp_path / "v", verdicts)
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=points).run(out)
    with (out / "comparison.csv").open() as stream:
        base, vas = csv.DictReader(stream)
    assert (vas["strict/win_rate"], vas["<b>kind</b>/win_rate"]) == ("0.0", "50.0")
    assert (base["strict/win_rate"], base["strict/verdicts"]) == ("", "")
    own = "".join(part for part in (out / "report.html").read_text().split("<script>") if len(part) < 1_000_000)
    assert "<b>kind" not in own
    assert "&lt;b&gt;kind" in own


def test_two_judges_agreement_by_hand(synthetic: ModuleType, tmp_path: Path) -> None:
    # [[20, 5], [10, 15]] of 50 pairs: p_o = .7, p_e = (25 · 30 + 25 · 20) / 50² = .5, κ = .4
    first, second = [1.0] * 25 + [2.0] * 25, [1.0] * 20 + [2.0] * 5 + [1.0] * 10 + [2.0] * 15
    verdicts = [
        synthetic.verdict(f"p{i:02}", preference, judge=judge)
        for judge, preferences in (("one", first), ("two", second))
        for i, preference in enumerate(preferences)
    ]
    same = [synthetic.verdict("p00", 1.5, judge=judge, outcome="identical") for judge in ("one", "two")]
    (found,) = judge_agreements([verdicts, same], **DRAWS)
    assert found["judges"] == ["one", "two"]
    assert found["points"][1] is None
    point = found["points"][0]
    assert (point["pairs"], point["raw"], point["kappa"]) == (50, pytest.approx(70), pytest.approx(0.4))
    assert point["kappa_low"] < 0.4 < point["kappa_high"]
    assert point["candidate_preferred"] == pytest.approx([50, 40])

    values = {"validation": [1.0, 2.0], "test": [1.0, 2.0]}
    entry = synthetic.write_point(tmp_path / "p", method="vas", settings={}, proxy=values)
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=[entry | {"verdicts": synthetic.write_verdicts(tmp_path / "v", verdicts)}]).run(out)
    page = (out / "report.html").read_text()
    assert "Do one and two agree?" in page
    assert "<td>50</td><td>70</td><td>0.40<small>[" in page


def test_a_point_whose_verdicts_all_failed_has_bounds_and_no_win_rate(synthetic: ModuleType, tmp_path: Path) -> None:
    values = {"validation": [1.0, 2.0], "test": [1.0, 2.0]}
    point = synthetic.write_point(tmp_path / "p", method="vas", settings={}, proxy=values)
    failed = [synthetic.verdict(f"test-{i:03}", None) for i in range(2)]
    point["verdicts"] = synthetic.write_verdicts(tmp_path / "v", failed)
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=[point]).run(out)
    (judged,) = json.loads((out / "comparison.json").read_text())["judges"]
    assert judged["points"][0]["win_rate"]["mean"] is None
    assert (judged["points"][0]["worst"], judged["points"][0]["best"]) == (0.0, 100.0)
    assert "2 of 2" in (out / "summary.txt").read_text()


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        ([{"part": "validation"}], "points.0.verdicts: vas was not judged on part 'test', only on validation"),
        ([{"canary": True}], "points.0.verdicts: vas was not judged on part 'test', nor on any other"),
        (None, "points.0.verdicts: "),
    ],
)
def test_verdicts_that_cannot_be_used_are_refused_in_one_line(
    synthetic: ModuleType, tmp_path: Path, verdicts: list[dict[str, Any]] | None, line: str
) -> None:
    folder = tmp_path / "missing"
    if verdicts is not None:
        rows = [synthetic.verdict("a", 2.0, **changes) for changes in verdicts]
        folder = synthetic.write_verdicts(tmp_path / "v", rows)
    with pytest.raises(BadInput) as refused:
        load_verdicts([{"label": "vas", "verdicts": folder}], "test")
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


def test_points_held_against_different_references_are_not_put_side_by_side(synthetic: ModuleType) -> None:
    rows = [[synthetic.verdict("a", 2.0)], [synthetic.verdict("a", 2.0, reference="bon")]]
    with pytest.raises(BadInput) as refused:
        judge_points(rows, **DRAWS)
    assert str(refused.value) == (
        "points: judge careful held some against base and some against bon; one reference is needed: give all points "
        "the same"
    )


def test_figures_that_nobody_can_say_are_null_and_not_nan(synthetic: ModuleType) -> None:
    (judged,) = judge_points([[synthetic.verdict("a", 2.0)]], **DRAWS)
    (found,) = judged.points
    assert found is not None
    assert found.win_rate.value == 100.0
    assert math.isnan(found.win_rate.low)  # one prompt says nothing about others
    assert (found.swap_consistency, found.length_controlled) == (None, None)
