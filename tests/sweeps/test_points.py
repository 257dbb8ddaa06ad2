"""Points and how their settings are written."""

from typing import Any

import pytest

from stages.records import Score
from sweeps.points import Point, setting_text, settings_order, shown_settings, told_apart_by


def score(prompt: str, part: str = "test", **changes: Any) -> Score:
    given = {
        "prompt_id": prompt, "part": part, "sample": 0, "method": "vas", "settings": "{}", "prompt": "", "text": "",
        "rewards": {"proxy": 1.0, "gold": 2.0}, "kl": 1.0, "kl_kind": "exact", "logprob": -1.0, "base_logprob": -2.0,
        "length": 10, "finished": True, "distinct_2": 1.0, "repetition": 0.0, "tokens": 20, "flops": 100.0,
        "seconds": 0.5,
    }  # fmt: skip
    return Score(**{**given, **changes})


def point(method: str = "vas", scores: Any = (), **settings: Any) -> Point:
    return Point(method, method, settings, scores)


def test_samples_of_a_prompt_are_averaged_part_by_part() -> None:
    rows = [score("a", rewards={"proxy": p, "gold": 0.0}, kl=p, sample=i) for i, p in enumerate((1.0, 3.0))]
    found = point(scores=[*rows, score("b"), score("c", part="validation")])
    assert found.rewards("proxy", "test") == {"a": 2.0, "b": 1.0}
    assert found.kl("test") == {"a": 2.0, "b": 1.0}
    assert found.rewards("proxy", "validation") == {"c": 1.0}
    assert found.rewards("proxy", "train") == {}
    assert found.kl_kind == "exact"


def test_strength_is_the_kl_and_without_one_the_compute() -> None:
    assert point(scores=[score("a", kl=2.0), score("b", kl=4.0)]).strength("test") == (3.0, 100.0)
    without = point(scores=[score("a", kl=float("nan"), flops=300.0), score("b", kl=1.0)])
    assert without.strength("test") == (float("inf"), 200.0)


def test_only_what_differs_within_a_method_is_shown() -> None:
    points = [point(beta=1.0, k=20), point(beta=2.0, k=20), point("bon", n=4)]
    assert [told_apart_by(p, points) for p in points] == [["beta"], ["beta"], ["n"]]
    assert [shown_settings(p, points) for p in points] == ["β = 1", "β = 2", "n = 4"]


def test_a_setting_that_does_not_apply_says_nothing() -> None:
    points = [point(beams=None, token_by="x"), point(beams=4, token_by="x"), point(beams=8, token_by="x")]
    assert told_apart_by(points[0], points) == []
    assert told_apart_by(points[1], points) == ["beams"]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("beta", 4.0, "β = 4"),
        ("lambda", 0.95, "λ = 0.95"),
        ("alpha", 1, "α = 1"),
        ("outside", "mean", "outside = mean"),
    ],
)
def test_a_setting_as_text(key: str, value: Any, text: str) -> None:
    assert setting_text(point(**{key: value}), key) == text


def test_settings_sort_as_numbers_before_words() -> None:
    points = [point(n=16), point(n=4), point(n="all"), point(n=2.5)]
    assert [p.settings["n"] for p in sorted(points, key=settings_order)] == [2.5, 4, 16, "all"]
