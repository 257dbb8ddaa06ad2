"""What the report says about judges."""

from typing import Any

from sweeps.judge_section import judge_section

RATE = {"mean": 60.0, "low": 50.0, "high": 70.0}


def content(canary: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    found = {
        "win_rate": RATE, "length_controlled": RATE, "notes": [], "verdicts": 20, "failures": {}, "worst": 60.0,
        "best": 60.0, "swap_consistency": 80.0, "position_effect": -3.0, "itself": False,
    } | changes  # fmt: skip
    point = {"method": "vas", "name": "vas", "strength": "β = 1", "chosen": False}
    return {
        "points": [point | {"method": "base", "name": "base"}, point],
        "reference": 0,
        "differences": [{"point": 1, "judges": [{"mean": 10.0, "low": 2.0, "high": 18.0}]}],
        "judges": [{"judge": "<careful>", "reference": "base", "points": [None, found], "canary": canary}],
        "agreements": [],
    }


def test_without_a_judge_there_is_no_section() -> None:
    assert judge_section(content() | {"judges": []}) == ""


def test_a_row_has_the_rates_the_difference_and_what_the_order_does() -> None:
    page = judge_section(content())
    assert "<h3>&lt;careful&gt;, every point against base</h3>" in page
    assert page.count("<td>60.0<small>[50.0, 70.0]</small></td>") == 2
    assert "<td>+10.00 <small>[+2.00, +18.00]</small></td>" in page
    assert "<td>80</td><td>−3</td><td>0 of 20</td>" in page


def test_an_unreliable_rate_is_marked_and_the_reason_given() -> None:
    page = judge_section(content(notes=["lengths barely overlap"]))
    assert "<td>† 60.0" in page
    assert "† vas: lengths barely overlap." in page
    assert "†" not in judge_section(content(notes=["lengths barely overlap"], length_controlled=None))


def test_failed_verdicts_come_with_what_they_could_have_changed() -> None:
    page = judge_section(content(failures={"refusal": 2}, worst=50.0, best=62.5))
    assert "<td>2 of 20<small>win rate 50.0 … 62.5</small></td>" in page


def test_a_null_model_that_does_not_lose_is_called_out() -> None:
    sound = judge_section(content(canary={"win_rate": 0.0, "pairs": 20, "high": 16.0, "lost": 1.0}))
    assert "wins 0 % of 20 prompts (up to 16 % by chance): it loses, as it has to." in sound
    unsound = judge_section(content(canary={"win_rate": 90.0, "pairs": 20, "high": 98.0, "lost": 0.0}))
    assert "it does not clearly lose: distrust this judge." in unsound
    assert "null model" not in judge_section(content(canary={"lost": 0.0}))  # no verdict on it came
