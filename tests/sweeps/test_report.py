"""The page: self-contained, escaped, complete."""

import json
import re
from pathlib import Path
from types import ModuleType

from sweeps.compare import Compare


def without_plotly(page: str) -> str:
    """The page without plotly.js itself, which names addresses that it never opens here."""
    scripts = page.split("<script>")
    return "".join(part for part in scripts if len(part) < 1_000_000)


def test_the_page_asks_for_nothing(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert page.count("plotly.js v") == 1
    assert "default-src 'none'" in page
    own = without_plotly(page)
    assert not re.search(r"(src|href)=\"(?!data:)", own)
    assert "http" not in own.replace("http-equiv", "")
    assert "{{" not in own


def test_every_point_is_in_the_table_and_the_plots(study: Path) -> None:
    page = (study / "report.html").read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert data is not None
    content = json.loads(data[1])
    assert content == json.loads((study / "comparison.json").read_text())
    for point in content["points"]:
        assert f"{point['gold']['mean']:.2f}<small>[{point['gold']['low']:.2f}, {point['gold']['high']:.2f}]" in page
    assert page.count("<article") == 5 * 7
    assert page.count("≤ 1.84<small>bound") == 1


def test_generated_text_cannot_become_markup(synthetic: ModuleType, tmp_path: Path) -> None:
    hostile = '</script><script>alert(1)</script><img src=x onerror=alert(2)> {{verdict}} & "quoted"'
    points = synthetic.write_study(tmp_path / "scores", text=hostile)
    for number, point in enumerate(points):
        point["settings"] = {"<b>x</b>": number}
        point["method"] = f"<i>{point['method']}</i>"
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=points).run(out)
    own = without_plotly((out / "report.html").read_text())
    assert "<script>alert" not in own
    assert "<img" not in own
    assert "<b>x" not in own
    assert "<i>" not in own
    assert own.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5 * 7
    assert own.count("{{verdict}}") == 2 * 5 * 7  # shown and in the data, not filled in


def test_without_lineage_the_page_says_so(synthetic: ModuleType, tmp_path: Path) -> None:
    entry = synthetic.write_point(tmp_path / "a", method="base", settings={}, proxy={"test": [1.0, 2.0]})
    out = tmp_path / "out"
    out.mkdir()
    Compare(points=[entry]).run(out)
    assert "were not handed to this comparison" in (out / "report.html").read_text()
