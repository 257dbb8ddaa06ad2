"""The points of a comparison: one method at one strength, its scores, and its figures over the prompts of a part."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stages import records
from stages.errors import BadInput
from stages.judge.verdicts.verdicts import Verdict
from stages.records import Score
from stages.reward import read_uncounted
from stages.statistics.intervals import Estimate, by_prompt, mean_interval, ratio_interval
from stages.training_cost import TrainingCost, read_costs
from sweeps.judged import load_verdicts

REWARDS = ("proxy", "gold")


@dataclass(frozen=True)
class Point:
    """One method at one strength."""

    label: str
    method: str
    settings: Mapping[str, Any]
    scores: Sequence[Score]
    """All parts."""
    verdicts: Sequence[Verdict] = ()
    """On the report part alone; empty where nobody judged."""
    trained: Sequence[TrainingCost] | None = None
    """What the models cost that the method needs beyond π₀; empty where it trains nothing, None where nobody says."""
    foresight: Path | None = None
    """Payload of stage `foresight` on the point's value; None where it has none or nobody measured it."""
    uncounted: Sequence[str] = ()
    """Rewards that select among its responses, whose scoring its FLOPs and tokens leave out."""

    @cached_property
    def parts(self) -> dict[str, list[Score]]:
        found: dict[str, list[Score]] = {}
        for score in self.scores:
            found.setdefault(score.part, []).append(score)
        return found

    def rewards(self, name: str, part: str) -> dict[str, float]:
        """Prompt id → mean reward of its samples."""
        rows = self.parts.get(part, [])
        return by_prompt((s.prompt_id for s in rows), (s.rewards[name] for s in rows))

    def kl(self, part: str) -> dict[str, float]:
        """Prompt id → mean KL to the base policy in nats; nan where the method has none."""
        rows = self.parts.get(part, [])
        return by_prompt((s.prompt_id for s in rows), (s.kl for s in rows))

    def strength(self, part: str) -> tuple[float, float]:
        """What a method's points are ordered by: measured KL; compute for a method without a KL."""
        rows = self.parts[part]
        kl = float(np.mean([s.kl for s in rows]))
        return (kl if np.isfinite(kl) else float("inf"), float(np.mean([s.flops for s in rows])))

    @property
    def kl_kind(self) -> str:
        return self.scores[0].kl_kind


@dataclass(frozen=True)
class Figures:
    """What the report says about a point, over the prompts of one part."""

    samples: int
    """Responses, all prompts together."""
    proxy: Estimate
    gold: Estimate
    kl: Estimate
    tokens_per_second: Estimate
    """Response tokens ÷ wall time."""
    seconds: Estimate
    """Wall time of all responses together; the interval is that of as many other prompts, nan for a single batch."""
    flops: Estimate
    """A response."""
    tokens: Estimate
    """Pushed through all models for a response."""
    length: Estimate
    finished: Estimate
    """Share of responses that ended by themselves."""
    distinct_2: Estimate
    repetition: Estimate


def figures(point: Point, part: str, *, draws: int, seed: int) -> Figures:
    """A point's figures over the prompts of `part`, each with its 95 % interval over prompts."""
    rows = point.parts[part]
    ids = [s.prompt_id for s in rows]

    def mean(values: Sequence[float]) -> Estimate:
        return mean_interval(np.array(list(by_prompt(ids, values).values())), draws=draws, seed=seed)

    counts = _sums(ids, [1.0] * len(rows))  # (B,) samples of each prompt
    seconds, lengths = _sums(ids, [s.seconds for s in rows]), _sums(ids, [float(s.length) for s in rows])
    rate = ratio_interval(lengths, seconds, draws=draws, seed=seed)
    each = ratio_interval(seconds, np.ones_like(counts), draws=draws, seed=seed)
    prompts = len(counts)
    total = Estimate(
        each.mean * prompts, each.low * prompts, each.high * prompts, each.standard_error * prompts, prompts
    )
    if len({s.seconds for s in rows}) == 1:  # one batch, divided evenly: nothing says how its time would vary
        nan = float("nan")
        total = Estimate(total.mean, nan, nan, nan, prompts)
    return Figures(
        samples=len(rows),
        proxy=mean([s.rewards["proxy"] for s in rows]),
        gold=mean([s.rewards["gold"] for s in rows]),
        kl=mean([s.kl for s in rows]),
        tokens_per_second=rate,
        seconds=total,
        flops=mean([s.flops for s in rows]),
        tokens=mean([float(s.tokens) for s in rows]),
        length=mean([float(s.length) for s in rows]),
        finished=mean([float(s.finished) for s in rows]),
        distinct_2=mean([s.distinct_2 for s in rows]),
        repetition=mean([s.repetition for s in rows]),
    )


def _sums(ids: Sequence[str], values: Sequence[float]) -> np.ndarray:
    """(B,) sums over each prompt's samples, in the order of the ids."""
    totals: dict[str, float] = {}
    for prompt_id, value in zip(ids, values, strict=True):
        totals[prompt_id] = totals.get(prompt_id, 0.0) + value
    return np.array([totals[prompt_id] for prompt_id in sorted(totals)])


def load_points(given: Sequence[Mapping[str, Any]], report_part: str) -> list[Point]:
    """Reads the points' scores and verdicts.

    Raises BadInput for `points.<i>…` that is incomplete, unreadable or has no rewards.
    """
    if not given:
        raise BadInput("points", "there is nothing to compare")
    points = []
    for number, entry in enumerate(given):
        place = f"points.{number}"
        if missing := [key for key in ("label", "method", "settings", "score") if key not in entry]:
            raise BadInput(place, f"has no {missing[0]!r}")
        try:
            scores = records.read(Path(entry["score"]) / "scores.parquet", Score)
        except (FileNotFoundError, ValueError) as error:
            raise BadInput(f"{place}.score", str(error).splitlines()[0]) from error
        if not any(score.part == report_part for score in scores):
            parts = ", ".join(sorted({score.part for score in scores})) or "none at all"
            raise BadInput("report_part", f"{entry['label']} has no scores on part {report_part!r}, only on {parts}")
        if absent := [name for name in REWARDS if name not in scores[0].rewards]:
            raise BadInput(f"{place}.score", f"{entry['label']} was not scored by a reward named {absent[0]!r}")
        try:
            decode = Path(entry["decode"]) if entry.get("decode") else None
            trained = None if decode is None else read_costs(decode)
            uncounted = [] if decode is None else read_uncounted(decode)
        except FileNotFoundError as error:
            raise BadInput(
                f"{place}.decode", f"{error.filename} does not exist; give a folder of stage decode"
            ) from error
        settings = dict(entry["settings"]) | _varied(entry, given)
        foresight = Path(entry["foresight"]) if entry.get("foresight") else None
        label, method = str(entry["label"]), str(entry["method"])
        points.append(Point(label, method, settings, scores, (), trained, foresight, uncounted))
    judged = load_verdicts(given, report_part)
    return [replace(point, verdicts=verdicts) for point, verdicts in zip(points, judged, strict=True)]


def _varied(entry: Mapping[str, Any], given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a sweep varied beyond the method's own settings, where the method's points differ in it."""
    same = [other.get("varied") or {} for other in given if other.get("method") == entry["method"]]
    varied: Mapping[str, Any] = entry.get("varied") or {}
    return {key: value for key, value in varied.items() if len({repr(other.get(key)) for other in same}) > 1}


def shown_settings(point: Point, points: Sequence[Point]) -> str:
    """The settings that set a point apart from others of its method; all of them where it is the only one.

    A setting that differs from all the same-named ones in the table reads `β = 4`.
    """
    return ", ".join(setting_text(point, key) for key in told_apart_by(point, points))


def told_apart_by(point: Point, points: Sequence[Point]) -> list[str]:
    """The settings in which a point's method has more than one value; all of them where it is the only one. Where a
    setting does not apply (null: the beams of what is not searched) it says nothing."""
    same = [other for other in points if other.method == point.method]
    found = []
    for key in (key for key, value in point.settings.items() if value is not None):
        values = [other.settings[key] for other in same if other.settings.get(key) is not None]
        if len(same) == 1 or len({json.dumps(value, default=str) for value in values}) > 1:
            found.append(key)
    return found


def settings_order(point: Point) -> list[tuple[Any, ...]]:
    """Sorts points of a method by their settings: numbers as numbers, before words."""
    return [
        (0, value, "") if isinstance(value, int | float) else (1, 0, str(value)) for value in point.settings.values()
    ]


def setting_text(point: Point, key: str) -> str:
    """`β = 4`."""
    return f"{_GREEK.get(key, key)} = {_short(point.settings[key])}"


_GREEK = {"beta": "β", "lambda": "λ", "alpha": "α"}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
