"""What a set of verdicts comes to, by hand."""

from typing import Any

import pytest

from stages.judge.verdicts.summary import canary_summary, pair_preferences, summary
from stages.records import Verdict

FIRST, SECOND = "candidate_first", "reference_first"


def verdict(prompt: str, preference: float | None, order: str = SECOND, **changes: Any) -> Verdict:
    given = {
        "prompt_id": prompt, "part": "test", "sample": 0, "judge": "j", "candidate": "vas", "reference": "base",
        "canary": False, "order": order, "preference": preference,
        "outcome": "verdict" if preference is not None else "refusal", "problem": "", "candidate_chars": 1,
        "reference_chars": 1, "answer": "", "asked": 1, "model": "m", "prompt_tokens": 1, "completion_tokens": 1,
        "cost": 0.25, "request": "",
    }  # fmt: skip
    return Verdict(**{**given, **changes})


VERDICTS = [
    verdict("a", 2.0, SECOND), verdict("a", 2.0, FIRST),  # wins in both orders
    verdict("b", 2.0, SECOND), verdict("b", 1.0, FIRST),  # whoever is shown second wins
    verdict("c", 1.25, SECOND), verdict("c", None, FIRST),  # one of two is missing
    verdict("d", None, SECOND), verdict("d", None, FIRST),  # nothing is known
]  # fmt: skip


def test_the_orders_of_a_pair_are_averaged_and_what_failed_is_left_out_or_filled_in() -> None:
    assert pair_preferences(VERDICTS) == {("a", 0): 2.0, ("b", 0): 1.5, ("c", 0): 1.25}
    assert pair_preferences(VERDICTS, missing=1.0) == {("a", 0): 2.0, ("b", 0): 1.5, ("c", 0): 1.125, ("d", 0): 1.0}


def test_every_figure_by_hand() -> None:
    figures = summary(VERDICTS)
    assert (figures["verdicts"], figures["failures"], figures["failures/refusal"]) == (8, 3, 3)
    # a: 100, b: 50, c: 25 → 58.33; squared deviations 1736.1 + 69.4 + 1111.1 = 2916.7, ÷ 2 = 1458.3, ÷ 3, √ = 22.05
    assert figures["win_rate"] == pytest.approx(175 / 3)
    assert figures["standard_error"] == pytest.approx(22.0479, abs=1e-4)
    # Missing ones lost: 100, 50, 12.5, 0; won: 100, 50, 62.5, 100.
    assert (figures["win_rate_low"], figures["win_rate_high"]) == (40.625, 78.125)
    # Only a and b have verdicts in both orders. b gains a whole win by being second, a nothing.
    assert (figures["swap_consistency"], figures["position_effect"]) == (50, 50)
    assert figures["cost"] == 2.0


def test_samples_of_a_prompt_are_pairs_of_their_own_and_one_observation() -> None:
    figures = summary([verdict("a", 2.0), verdict("a", 1.0, sample=1), verdict("b", 1.0)])
    assert figures["win_rate"] == pytest.approx(100 / 3)  # over three pairs
    # Over two prompts, 50 and 0: sd = 35.36, ÷ √2 = 25.
    assert figures["standard_error"] == pytest.approx(25)


def test_what_cannot_be_said_is_left_out() -> None:
    assert summary([]) == {"verdicts": 0, "failures": 0}
    one = summary([verdict("a", 2.0, cost=None)])
    assert {"standard_error", "swap_consistency", "position_effect", "cost"}.isdisjoint(one)
    none = summary([verdict("a", None)])
    assert "win_rate" not in none
    assert (none["win_rate_low"], none["win_rate_high"]) == (0, 100)


def test_identical_responses_say_nothing_about_the_order() -> None:
    same = [verdict("a", 1.5, order, outcome="identical") for order in (FIRST, SECOND)]
    assert "swap_consistency" not in summary(same)
    assert summary(same)["win_rate"] == 50


def test_a_null_model_has_lost_where_chance_does_not_explain_it() -> None:
    lost = canary_summary([verdict(f"p{i}", 1.0) for i in range(20)])
    # Wilson's upper end for 0 of 20: z² / (n + z²) = 3.8416 / 23.8416
    assert (lost["pairs"], lost["win_rate"], lost["lost"]) == (20, 0, 1)
    assert lost["high"] == pytest.approx(100 * 3.8416 / 23.8416)
    assert canary_summary([verdict("a", 1.0)])["lost"] == 0  # one pair shows nothing
    assert canary_summary([verdict("a", None)]) == {"lost": 0.0}
