"""The value's own quality in the report: as the stage measured it, only where it was asked for."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from stages.errors import BadInput
from sweeps.compare import Compare
from sweeps.foresight import read_foresight


@pytest.fixture
def folder(synthetic: ModuleType, tmp_path: Path) -> Path:
    return synthetic.write_foresight(tmp_path / "foresight")


def report(synthetic: ModuleType, root: Path, foresight: Path | None) -> tuple[str, list[dict]]:
    points = synthetic.write_study(root / "scores", prompts=8)
    points = [entry | ({"foresight": foresight} if entry["method"] == "vas" else {}) for entry in points]
    out = root / "out"
    out.mkdir()
    Compare(points=points).run(out)
    return (out / "report.html").read_text(), json.loads((out / "comparison.json").read_text())["foresight"]


def test_the_page_shows_value_and_prefix_reward_by_position(
    synthetic: ModuleType, folder: Path, tmp_path: Path
) -> None:
    page, (measured,) = report(synthetic, tmp_path, folder)
    content = measured["places"]
    assert measured["of"] == "vas"
    assert page.count('id="foresight-0"') == 1
    assert [entry["place"] for entry in content] == ["start", "middle", "end"]
    assert content[0]["value"] == {"mean": 0.46, "low": 0.31, "high": 0.59}
    assert content[2]["difference"] == {"mean": -0.03, "low": -0.08, "high": 0.02}
    assert "0.46<small>[0.31, 0.59]</small>" in page
    assert "−0.03<small>[−0.08, 0.02]</small>" in page
    assert "128 prompts" in page


def test_without_it_nothing_is_said(synthetic: ModuleType, tmp_path: Path) -> None:
    page, content = report(synthetic, tmp_path, None)
    assert content == []
    assert "foresees" not in page
    assert 'id="foresight-0"' not in page


def test_each_value_has_its_own_figure_under_the_points_that_it_steers(
    synthetic: ModuleType, folder: Path, tmp_path: Path
) -> None:
    other = synthetic.write_foresight(tmp_path / "other")
    (tmp_path / "out").mkdir()
    points = synthetic.write_study(tmp_path / "scores", prompts=8)
    for number, entry in enumerate(entry for entry in points if entry["method"] == "vas"):
        entry["foresight"] = other if number == 0 else folder
    Compare(points=points).run(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [entry["of"] for entry in content["foresight"]] == ["vas (β = 1)", "vas (β = 2), vas (β = 4), vas (β = 8)"]
    assert (tmp_path / "out" / "report.html").read_text().count('id="foresight-') == 2


def test_a_correlation_that_does_not_exist_is_a_dash(synthetic: ModuleType, folder: Path, tmp_path: Path) -> None:
    """An empty prefix has the same reward everywhere: no ranks to correlate."""
    path = folder / "foresight.json"
    found = json.loads(path.read_text())
    for name in ("prefix_reward", "difference"):
        found["start"]["correlation"][name] = float("nan")
        found["start"]["interval"][name] = [float("nan")] * 2
    path.write_text(json.dumps(found))
    page, (measured,) = report(synthetic, tmp_path, folder)
    assert measured["places"][0]["prefix_reward"] == {"mean": None, "low": None, "high": None}
    assert "The value foresees better than the reward of the prefix at middle; it cannot be told apart" in page
    assert '<td class="none">–</td>' in page.split("Rank correlation with the truth")[1].split("</table>")[0]


@pytest.mark.parametrize("text", [None, "[1, 2]", '{"start": {"truth": []}}', "{"])
def test_another_folder_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "foresight.json").write_text(text)
    with pytest.raises(BadInput, match="holds no figures of stage foresight") as error:
        read_foresight(tmp_path)
    assert error.value.field == "foresight"
    assert "\n" not in error.value.problem
