"""Which setting is chosen, what it is compared with, and how the answer is worded."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stages.errors import BadInput
from sweeps.choice import choose, differences, named, reference_point, verdict
from sweeps.load import load_points
from sweeps.points import Point

DRAWS: dict[str, Any] = {"draws": 1000, "seed": 0}


def make(synthetic: ModuleType, root: Path, rows: list[dict[str, Any]]) -> list[Point]:
    entries = [synthetic.write_point(root / str(number), **row) for number, row in enumerate(rows)]
    return load_points(entries, "test")


def steered(beta: float, kl: float, validation: list[float], gold: list[float] | None = None) -> dict[str, Any]:
    proxy = {"validation": validation, "test": [0.0, 1.0]}
    golds = {"validation": gold or validation, "test": [0.0, 1.0]}
    return {"method": "tilted", "settings": {"beta": beta, "k": 20}, "kl": kl, "proxy": proxy, "gold": golds}


def test_the_weakest_setting_within_one_standard_error_of_the_best(synthetic: ModuleType, tmp_path: Path) -> None:
    # β = 4 is best (mean 2.0). β = 2 lies behind by (0.6, −0.2, 0.4, −0.4): mean 0.1, sd 0.476, standard error
    # 0.476/√4 = 0.238 ≥ 0.1: not clearly below, and its KL is smaller. β = 1 lies behind by 1 everywhere (error 0).
    points = make(
        synthetic,
        tmp_path,
        [
            steered(4.0, 9.0, [1.0, 2.0, 3.0, 2.0]),
            steered(1.0, 1.0, [0.0, 1.0, 2.0, 1.0]),
            steered(2.0, 3.0, [0.4, 2.2, 2.6, 2.4]),
        ],
    )
    assert choose(points, "validation")["tilted"].point.settings["beta"] == 4.0
    choice = choose(points, "validation", slack=1.0)["tilted"]
    assert choice.point.settings["beta"] == 2.0
    assert choice.best.settings["beta"] == 4.0
    assert choice.deficit == pytest.approx(0.1)
    assert choice.allowed == pytest.approx(np.std([0.6, -0.2, 0.4, -0.4], ddof=1) / 2)
    assert choice.prompts == 4


def test_gold_does_not_influence_the_choice(synthetic: ModuleType, tmp_path: Path) -> None:
    rows = [steered(1.0, 1.0, [0.0, 0.1, 0.2, 0.1]), steered(2.0, 3.0, [1.0, 1.1, 1.2, 1.1])]
    loved = [steered(1.0, 1.0, [0.0, 0.1, 0.2, 0.1], gold=[9.0] * 4), rows[1]]
    first = choose(make(synthetic, tmp_path / "a", rows), "validation")["tilted"]
    second = choose(make(synthetic, tmp_path / "b", loved), "validation")["tilted"]
    assert first.point.settings == second.point.settings == {"beta": 2.0, "k": 20}


def test_strength_is_the_measured_kl_and_not_the_settings_name(synthetic: ModuleType, tmp_path: Path) -> None:
    # Equal proxies: the smallest KL wins, whatever its β says.
    points = make(synthetic, tmp_path, [steered(1.0, 5.0, [1.0, 2.0]), steered(9.0, 0.5, [1.0, 2.0])])
    assert choose(points, "validation")["tilted"].point.settings["beta"] == 9.0


def test_methods_with_one_point_have_nothing_to_choose(synthetic: ModuleType, tmp_path: Path) -> None:
    assert choose(make(synthetic, tmp_path, [steered(1.0, 1.0, [1.0])]), "validation") == {}


def test_settings_without_common_prompts_cannot_be_chosen_among(synthetic: ModuleType, tmp_path: Path) -> None:
    points = make(synthetic, tmp_path, [steered(1.0, 1.0, [1.0]), steered(2.0, 2.0, [1.0])])
    with pytest.raises(BadInput, match="select_part: the 2 settings of tilted share no prompt of part 'tuning'"):
        choose(points, "tuning")


def best_of(n: int, kl: float, test: list[float]) -> dict[str, Any]:
    proxy = {"validation": [1.0, 1.0], "test": test}
    return {"method": "bon", "settings": {"n": n}, "kl": kl, "kl_kind": "bound", "proxy": proxy}


def test_the_reference_is_the_strongest_of_its_method(synthetic: ModuleType, tmp_path: Path) -> None:
    points = make(synthetic, tmp_path, [best_of(16, 1.84, [1.0]), best_of(4, 0.64, [1.0])])
    reference = reference_point(points, "bon", "test")
    assert reference is not None
    assert reference.settings["n"] == 16


def test_without_the_reference_method_the_weakest_point_stands_in(synthetic: ModuleType, tmp_path: Path) -> None:
    base = {"method": "base", "settings": {}, "proxy": {"validation": [0.0], "test": [0.0]}}
    points = make(synthetic, tmp_path, [steered(2.0, 3.0, [1.0]), base])
    reference = reference_point(points, "bon", "test")
    assert reference is not None
    assert reference.method == "base"
    assert reference_point(points[:1], "bon", "test") is None


@pytest.mark.parametrize(
    ("shift", "words"),
    [(1.0, "more gold reward than bon"), (-1.0, "less gold reward than bon"), (0.0, "cannot be told apart")],
)
def test_the_verdict_says_what_was_measured(synthetic: ModuleType, tmp_path: Path, shift: float, words: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, 40)
    noise -= noise.mean()
    ours = [float(shift + value) for value in noise]
    rows = [
        best_of(16, 1.84, [0.0] * 40),
        *(
            {
                "method": "tilted", "settings": {"beta": beta, "k": 20}, "kl": beta,
                "proxy": {"validation": [beta, beta], "test": ours},
            }
            for beta in (1.0, 2.0)
        ),
    ]  # fmt: skip
    points = make(synthetic, tmp_path, rows)
    chosen = choose(points, "validation")
    reference = reference_point(points, "bon", "test")
    assert reference is not None
    found = differences(points, chosen, reference, "test", **DRAWS)
    sentence = verdict(points, chosen, found, "test")
    assert words in sentence
    assert sentence.startswith("tilted (β = 2), chosen on 2 other prompts by proxy reward alone,")
    assert f"{abs(shift):.2f}" in sentence
    assert "40 test prompts, paired" in sentence


def test_a_single_point_gets_no_verdict(synthetic: ModuleType, tmp_path: Path) -> None:
    points = make(synthetic, tmp_path, [steered(2.0, 3.0, [1.0])])
    assert "One point only: tilted." in verdict(points, {}, [], "test")


def test_settings_of_one_method_are_held_against_its_weakest(synthetic: ModuleType, tmp_path: Path) -> None:
    """`tilt run -m method=dpo policy.beta=0.05,0.5`: no other method, and still a sentence on what strength bought."""
    rows = [
        {
            "method": "dpo",
            "settings": {"beta": beta},
            "kl": kl,
            "proxy": {"validation": [reward] * 9, "test": [reward] * 9},
        }
        for beta, kl, reward in ((0.05, 8.0, 2.0), (0.5, 1.0, 1.5))
    ]
    points = make(synthetic, tmp_path, rows)
    chosen, reference = choose(points, "validation"), reference_point(points, "bon", "test")
    assert reference is points[1]
    found = differences(points, chosen, points[1], "test", **DRAWS)
    assert "earns 0.50 more gold reward than dpo (β = 0.5)" in verdict(points, chosen, found, "test")
    assert differences(points, chosen, points[0], "test", **DRAWS) == []
    said = verdict(points, chosen, [], "test")
    assert said.startswith("2 settings of dpo: dpo (β = 0.05) was chosen by proxy reward; there is nothing else")


def test_where_none_is_chosen_every_setting_is_held_against_the_reference(
    synthetic: ModuleType, tmp_path: Path
) -> None:
    points = make(synthetic, tmp_path, [steered(1.0, 1.0, [1.0]), steered(4.0, 4.0, [2.0]), best_of(4, 0.6, [1.0])])
    found = differences(points, {}, points[2], "test", **DRAWS)
    assert [d.point for d in found] == points[:2]
    assert verdict(points, {}, found, "test").count("tilted (β = ") == 2


def test_a_setting_that_does_not_apply_is_not_named(synthetic: ModuleType, tmp_path: Path) -> None:
    """Where nothing is searched there are no beams, and the beams of the others, all alike, set nothing apart."""
    rows = [steered(1.0, kl, [1.0]) for kl in (1.0, 2.0, 3.0)]
    for row, (by, beams) in zip(rows, (("none", None), ("value", 2), ("ratio", 2)), strict=True):
        row["settings"] = {"chunk_by": by, "beams": beams}
    points = make(synthetic, tmp_path, rows)
    assert [named(point, points) for point in points] == [
        "tilted (chunk_by = none)",
        "tilted (chunk_by = value)",
        "tilted (chunk_by = ratio)",
    ]


def test_points_are_named_by_what_differs(synthetic: ModuleType, tmp_path: Path) -> None:
    points = make(synthetic, tmp_path, [steered(1.0, 1.0, [1.0]), steered(0.5, 2.0, [1.0]), best_of(4, 0.6, [1.0])])
    assert [named(point, points) for point in points] == ["tilted (β = 1)", "tilted (β = 0.5)", "bon"]
