"""The points of a comparison: one method at one strength with its scores, and how its settings are written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stages.records import Score, Verdict
from stages.statistics.means import by_prompt
from stages.training_cost import TrainingCost


@dataclass(frozen=True)
class Point:
    """One method at one strength."""

    label: str
    method: str
    settings: Mapping[str, Any]
    scores: Sequence[Score]
    """All parts."""
    verdicts: Sequence[Verdict] = ()
    """Only those on the report part; empty where nobody judged."""
    trained: Sequence[TrainingCost] | None = None
    """What training cost, for the models that the method needs beyond π₀; empty where there are none, None where
    nobody recorded it."""
    foresight: Path | None = None
    """Payload of stage `foresight` on the point's value; None where it has none or nobody measured it."""
    uncounted: Sequence[str] = ()
    """Class names of the rewards that select among its responses without saying what scoring takes: its FLOPs and
    tokens leave that out."""

    @cached_property
    def parts(self) -> dict[str, list[Score]]:
        """Scores by part."""
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
        """(KL in nats, FLOPs a response) on a part, which order the points of a method from weak to strong. The KL is
        infinite where the method has none, so that compute decides."""
        rows = self.parts[part]
        kl = float(np.mean([s.kl for s in rows]))
        return (kl if np.isfinite(kl) else float("inf"), float(np.mean([s.flops for s in rows])))

    @property
    def kl_kind(self) -> str:
        return self.scores[0].kl_kind


def shown_settings(point: Point, points: Sequence[Point]) -> str:
    """The settings in which a point differs from others of its method, as text: `β = 4, k = 20`.

    All of its settings, where it is the only point of its method.
    """
    return ", ".join(setting_text(point, key) for key in told_apart_by(point, points))


def told_apart_by(point: Point, points: Sequence[Point]) -> list[str]:
    """Names of the settings that have several values among the points of this method; of all of them, where it is the
    only one. A setting that is null does not apply (the beams, where nothing is searched) and is left out."""
    same = [other for other in points if other.method == point.method]
    found = []
    for key in (key for key, value in point.settings.items() if value is not None):
        values = [other.settings[key] for other in same if other.settings.get(key) is not None]
        if len(same) == 1 or len({json.dumps(value, default=str) for value in values}) > 1:
            found.append(key)
    return found


def settings_order(point: Point) -> list[tuple[Any, ...]]:
    """A sort key for the points of a method: by their settings in turn, numbers by size and before words."""
    return [
        (0, value, "") if isinstance(value, int | float) else (1, 0, str(value)) for value in point.settings.values()
    ]


def setting_text(point: Point, key: str) -> str:
    """`β = 4`."""
    return f"{_GREEK.get(key, key)} = {_short(point.settings[key])}"


_GREEK = {"beta": "β", "lambda": "λ", "alpha": "α"}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
