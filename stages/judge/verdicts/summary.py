"""What a set of verdicts comes to: win rate, failures, effects of the order. Pure arithmetic on `records.Verdict`."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from stages.judge.verdicts.order import CANDIDATE_FIRST, REFERENCE_FIRST
from stages.judge.verdicts.outcomes import FAILURES, IDENTICAL
from stages.records import Verdict


def by_pair(verdicts: Sequence[Verdict]) -> dict[tuple[str, int], list[Verdict]]:
    """The verdicts on each pair of responses, by (prompt id, sample): one for each order."""
    groups: dict[tuple[str, int], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.prompt_id, verdict.sample].append(verdict)
    return groups


def pair_preferences(verdicts: Sequence[Verdict], missing: float | None = None) -> dict[tuple[str, int], float]:
    """The mean preference (1…2) over the orders of each pair of responses, by (prompt id, sample).

    A failed verdict counts as `missing`. Without that it is left out, and so is a pair whose verdicts all failed.
    """
    found = {}
    for pair, group in by_pair(verdicts).items():
        given = [missing if v.preference is None else v.preference for v in group]
        if known := [preference for preference in given if preference is not None]:
            found[pair] = _mean(known)
    return found


def summary(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Figures of one judge's verdicts on one candidate. Shares are in points (0–100). A figure that these verdicts do
    not give is left out.

    `verdicts`, `failures`, `failures/<outcome>`: how many. `win_rate`: mean over pairs of the mean preference over
    their orders. `standard_error`: of that, over prompts. `win_rate_low`, `win_rate_high`: the win rate if the
    candidate had lost, or won, wherever a verdict failed. `swap_consistency`: share of the pairs with the same winner
    in both orders. `position_effect`: points that a candidate gains by being shown second. `cost`: US dollars.
    """
    figures: dict[str, float] = {"verdicts": len(verdicts)}
    failed = [v for v in verdicts if v.outcome in FAILURES]
    figures["failures"] = len(failed)
    for outcome, count in sorted(Counter(v.outcome for v in failed).items()):
        figures[f"failures/{outcome}"] = count
    figures |= _win_rate(verdicts) | _order_effects(verdicts)
    costs = [v.cost for v in verdicts]
    if costs and None not in costs:
        figures["cost"] = math.fsum(c for c in costs if c is not None)
    return figures


def _win_rate(verdicts: Sequence[Verdict]) -> dict[str, float]:
    figures = {}
    wins = {pair: preference - 1 for pair, preference in pair_preferences(verdicts).items()}
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for (prompt_id, _), win in wins.items():
        by_prompt[prompt_id].append(win)
    if wins:
        figures["win_rate"] = 100 * _mean(list(wins.values()))
    if len(by_prompt) > 1:
        means = [_mean(wins) for wins in by_prompt.values()]
        centre = _mean(means)
        variance = math.fsum((x - centre) ** 2 for x in means) / (len(means) - 1)
        figures["standard_error"] = 100 * math.sqrt(variance / len(means))
    for name, missing in (("win_rate_low", 1.0), ("win_rate_high", 2.0)):
        if filled := pair_preferences(verdicts, missing):
            figures[name] = 100 * (_mean(list(filled.values())) - 1)
    return figures


def _order_effects(verdicts: Sequence[Verdict]) -> dict[str, float]:
    swapped = []  # the pairs with a verdict in both orders, as {order: preference}
    for group in by_pair(verdicts).values():
        found = {v.order: v.preference for v in group if v.preference is not None and v.outcome != IDENTICAL}
        if set(found) == {REFERENCE_FIRST, CANDIDATE_FIRST}:
            swapped.append(found)
    if not swapped:
        return {}
    same = [_winner(f[REFERENCE_FIRST]) == _winner(f[CANDIDATE_FIRST]) for f in swapped]
    return {
        "swap_consistency": 100 * _mean(same),
        "position_effect": 100 * _mean([f[REFERENCE_FIRST] - f[CANDIDATE_FIRST] for f in swapped]),
    }


def canary_summary(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Did the null model lose? `pairs`; its `win_rate`; the upper end `high` of the 95 % interval of that (Wilson's,
    over pairs); and `lost`, 1.0 where `high` is below 50. Only `lost`, 0.0, where no verdict came.
    """
    figures = summary(verdicts)
    if "win_rate" not in figures:
        return {"lost": 0.0}
    n = len(pair_preferences(verdicts))
    p, z = figures["win_rate"] / 100, 1.96
    high = (p + z * z / (2 * n) + z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    return {"pairs": n, "win_rate": figures["win_rate"], "high": 100 * high, "lost": float(high < 0.5)}


def _winner(preference: float) -> int:
    return (preference > 1.5) - (preference < 1.5)


def _mean(values: Sequence[Any]) -> float:
    return math.fsum(values) / len(values)
