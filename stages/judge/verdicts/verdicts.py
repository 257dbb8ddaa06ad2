"""The record of a verdict, what goes into one, and what a set of them comes to."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stages.judge.asking.answers import FAILURES
from stages.records import Prompt

CANDIDATE_FIRST, REFERENCE_FIRST, EITHER = "candidate_first", "reference_first", "either"
NULL_MODEL = "null model"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one judge said of one pair of responses in one order."""

    prompt_id: str
    part: str
    sample: int
    judge: str
    candidate: str
    """The method that is judged; `null model` for the canary."""
    reference: str
    """The method it is held against."""
    canary: bool
    order: str
    """`candidate_first`, `reference_first`; `either` for a judge that reads both at once (the reward)."""
    preference: float | None
    """1…2, 2 = the candidate is preferred; None without a verdict."""
    outcome: str
    """`verdict`, `identical` (1.5, nobody asked), or one of `answers.FAILURES`."""
    problem: str
    """One line about a failure."""
    candidate_chars: int
    """Characters of the response as judges read it, the prompt's opening included."""
    reference_chars: int
    answer: str
    """What the judge wrote, its rationale included."""
    asked: int
    """How often the question was asked: 1, more after answers without a verdict, 0 where nobody was asked."""
    model: str
    """The model's name as the server returned it; empty without an answer."""
    prompt_tokens: int
    """All askings together, as the server counted them."""
    completion_tokens: int
    cost: float | None
    """US dollars, all askings; None where the model has no known price."""
    request: str
    """Key of the deciding answer among the recorded requests; empty where there is none."""


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt."""

    prompt: Prompt
    instruction: str
    sample: int
    candidate: str
    """The response itself; what the judge reads is the prompt's opening and this."""
    reference: str
    candidate_method: str
    reference_method: str
    canary: bool = False


@dataclass
class Session:
    """What a judge is handed besides its configuration."""

    requests: Path
    """Folder of recorded answers."""
    progress: Callable[[int, int, str], None] = lambda done, total, note: None
    figures: dict[str, float] = field(default_factory=dict)
    """Filled by the judge: how many requests it sent, found recorded, lost."""


@runtime_checkable
class PairJudge(Protocol):
    """Decides pairs. `order`: `both`, `seeded` or `as_is`; one verdict a pair and order, in the pairs' order."""

    name: str

    def decide(self, pairs: Sequence[Pair], order: str, session: Session) -> list[Verdict]: ...


def orders(order: str, switched: bool) -> list[str]:
    """The orders in which a pair is shown. `seeded` follows `switched`, `as_is` shows the reference first."""
    if order == "both":
        return [REFERENCE_FIRST, CANDIDATE_FIRST]
    return [CANDIDATE_FIRST if order == "seeded" and switched else REFERENCE_FIRST]


def by_pair(verdicts: Sequence[Verdict]) -> dict[tuple[str, int], list[Verdict]]:
    groups: dict[tuple[str, int], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.prompt_id, verdict.sample].append(verdict)
    return groups


def summary(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Figures of one judge's verdicts on one candidate, shares in points (0–100); what cannot be said is left out.

    `win_rate`: mean over pairs of the mean preference over their orders. `win_rate_low`, `win_rate_high`: every verdict
    that is missing lost, won. `standard_error`: over prompts. `swap_consistency`: pairs with the same winner in both
    orders. `position_effect`: points that a candidate gains by being shown second.
    """
    figures: dict[str, float] = {"verdicts": len(verdicts)}
    failed = [v for v in verdicts if v.outcome in FAILURES]
    figures["failures"] = len(failed)
    for outcome, count in sorted(Counter(v.outcome for v in failed).items()):
        figures[f"failures/{outcome}"] = count
    pairs = by_pair(verdicts)
    known = {key: [v.preference - 1 for v in group if v.preference is not None] for key, group in pairs.items()}
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for (prompt_id, _), values in known.items():
        if values:
            by_prompt[prompt_id].append(_mean(values))
    if by_prompt:
        figures["win_rate"] = 100 * _mean([mean for means in by_prompt.values() for mean in means])
    if len(by_prompt) > 1:
        clusters = [_mean(means) for means in by_prompt.values()]
        centre = _mean(clusters)
        variance = sum((x - centre) ** 2 for x in clusters) / (len(clusters) - 1)
        figures["standard_error"] = 100 * math.sqrt(variance / len(clusters))
    if verdicts:
        for name, filled in (("win_rate_low", 0.0), ("win_rate_high", 1.0)):
            means = [_mean(known[key] + [filled] * (len(group) - len(known[key]))) for key, group in pairs.items()]
            figures[name] = 100 * _mean(means)
    shown = {REFERENCE_FIRST: 0.0, CANDIDATE_FIRST: 0.0}
    swapped = []
    for group in pairs.values():
        found = {v.order: v.preference for v in group if v.preference is not None and v.outcome != "identical"}
        if set(found) == set(shown):
            swapped.append(found)
    if swapped:
        same = [_winner(f[REFERENCE_FIRST]) == _winner(f[CANDIDATE_FIRST]) for f in swapped]
        figures["swap_consistency"] = 100 * _mean(same)
        figures["position_effect"] = 100 * _mean([f[REFERENCE_FIRST] - f[CANDIDATE_FIRST] for f in swapped])
    costs = [v.cost for v in verdicts]
    if costs and None not in costs:
        figures["cost"] = math.fsum(c for c in costs if c is not None)
    return figures


def canary_summary(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """`win_rate` of the null model, the upper end `high` of its 95 % interval (Wilson, over pairs), and whether it
    `lost`: whether `high` is below 50.
    """
    figures = summary(verdicts)
    if "win_rate" not in figures:
        return {"lost": 0.0}
    n = sum(any(v.preference is not None for v in group) for group in by_pair(verdicts).values())
    p, z = figures["win_rate"] / 100, 1.96
    high = (p + z * z / (2 * n) + z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    return {"pairs": n, "win_rate": figures["win_rate"], "high": 100 * high, "lost": float(high < 0.5)}


def _winner(preference: float) -> int:
    return (preference > 1.5) - (preference < 1.5)


def _mean(values: Sequence[Any]) -> float:
    return math.fsum(values) / len(values)
