"""The report's words about what a value foresees."""

from pathlib import Path
from types import ModuleType

import pytest

from sweeps.foresight import read_foresight
from sweeps.foresight_section import foresight_section, foresight_text


@pytest.fixture
def folder(synthetic: ModuleType, tmp_path: Path) -> Path:
    return synthetic.write_foresight(tmp_path / "foresight")


def test_the_sentence_claims_what_the_interval_of_the_difference_shows(folder: Path) -> None:
    # start +0.25 [0.07, 0.42] and middle +0.15 [0.05, 0.26] lie above zero; end −0.03 [−0.08, 0.02] does not.
    assert foresight_text(read_foresight(folder)) == (
        "The value foresees better than the reward of the prefix at start and middle; it cannot be told apart from the "
        "reward of the prefix at end."
    )


def figures(mean: float | None, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"mean": mean, "low": low, "high": high}


def test_a_position_where_one_of_the_two_ranks_nothing_is_left_out() -> None:
    places = [
        {"place": "start", "difference": figures(None, None, None)},
        {"place": "end", "difference": figures(-0.5, -0.7, -0.3)},
    ]
    assert foresight_text(places) == "The value foresees worse than the reward of the prefix at end."
    assert foresight_text(places[:1]) == ""


def test_a_section_for_each_value_and_none_without_one(folder: Path) -> None:
    assert foresight_section({"foresight": []}) == ""
    page = foresight_section({"foresight": [{"of": "<b>vas</b>", "places": read_foresight(folder)}]})
    assert page.startswith("<h2>What the value foresees</h2><h3>The value of &lt;b&gt;vas&lt;/b&gt;</h3>")
    assert page.count("<th scope=row>") == 3
    assert '<div class="plot" id="foresight-0">' in page
