"""What the report says about compute."""

import pytest

from sweeps.compute_section import _notes, flops_html


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.25e13, "2.2 × 10<sup>13</sup>"), (9.99e11, "1.0 × 10<sup>12</sup>"), (0.0, "0"), (None, "–")],
)
def test_powers_of_ten(value: float | None, shown: str) -> None:
    assert flops_html(value) == shown


def point(method: str, models: list[str], uncounted: list[str]) -> dict:
    training = {"train_flops": 1.0, "train_tokens": 1.0, "rollout_flops": 1.0, "rollout_tokens": 1.0}
    return {"method": method, "strength": "", "models": [{"model": m} for m in models], "training": training,
            "uncounted": uncounted}  # fmt: skip


def test_what_was_trained_and_what_is_not_counted_is_said_of_whom() -> None:
    points = [point("base", [], []), point("vas", ["Value model"], []), point("bon", [], ["<b>Brevity</b>"])]
    notes = _notes({"points": points})
    assert "Trained here: Value model for vas. " in notes
    assert " &lt;b&gt;Brevity&lt;/b&gt; does not say what scoring takes and counts as free for bon." in notes
    assert "Trained here" not in _notes({"points": points[:1]})
