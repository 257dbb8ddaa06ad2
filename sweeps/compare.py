"""Stage: compares many points, to say which method to use, how strongly, and what that is worth.

Reads `scores.parquet` (records.Score) of every point, and `verdicts.parquet` (records.Verdict) where a judge
decided; writes `comparison.csv` (one row a point), `summary.txt` (the table for the terminal), `comparison.json` (all
figures) and `report.html` (one self-contained page).
Alone: `tilt run -m method=base,bon,vas` (its goal is `compare` unless another is named).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.errors import BadInput
from stages.runtime import Runtime
from sweeps.choice import Choice, Difference, choose, differences, reference_point
from sweeps.content import Rules, Study, describe
from sweeps.figures import figures
from sweeps.foresight import values_measured
from sweeps.judged_points import judge_points
from sweeps.load import load_points
from sweeps.points import Point, settings_order
from sweeps.report import render
from sweeps.summary import summary
from sweeps.table import columns, rows, settings_text, write_csv


@dataclass
class Compare:
    """Compares points over the same prompts.

    For every method with several points one setting is chosen (`sweeps.choice.choose`), by the proxy on `select_part`
    alone. All that is reported is measured on `report_part`. Raises BadInput for `points`, `select_part`,
    `report_part`, `slack`, `reference` and `draws` that cannot be used.
    """

    points: list[dict[str, Any]]
    """One mapping for each point:

    - `label`, `method`, `settings`;
    - `score`: folder that its score stage wrote;
    - `verdicts`: that of its judge stage; absent or null where nobody judged it;
    - `decode`: that of its decode stage; absent or null: nothing is known of what its models cost to train;
    - `foresight`: that of stage foresight on its value; absent or null: the report does not say how good the value is;
    - `varied`: what a sweep varied beside the method's settings, as `{"value.td_lambda": 0.5}`. It tells points apart
      that have the same method and the same settings.
    """
    select_part: str = "validation"
    """The part of the prompts on which settings are chosen; empty: none is chosen."""
    report_part: str = "test"
    slack: float = 0.0
    """A setting with a smaller KL is chosen if it lies at most so many standard errors below the best."""
    reference: str = "bon"
    """The method that the others are compared with, at its strongest setting."""
    draws: int = 2000
    """Bootstrap draws of every interval; 1,000 at least."""
    seed: int = 0
    shown: int = 5
    """Number of prompts, drawn at random, whose responses the report shows."""
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        if self.draws < 1000:
            raise BadInput("draws", f"{self.draws} are too few for a 95 % interval; 1,000 at least")
        if not self.slack >= 0:
            raise BadInput("slack", f"{self.slack} is not a number of standard errors, 0 or more")
        if self.select_part == self.report_part:
            raise BadInput("select_part", f"{self.select_part!r} is also the part of the report; choose on another one")
        points = self._ordered(load_points(self.points, self.report_part))
        foresight = values_measured(points)
        judges = judge_points([point.verdicts for point in points], draws=self.draws, seed=self.seed)
        measured = []
        for done, point in enumerate(points):
            self.runtime.progress(done, len(points) + 1, point.label)
            measured.append(figures(point, self.report_part, draws=self.draws, seed=self.seed))
        chosen = choose(points, self.select_part, self.slack) if self.select_part else {}
        against = self._reference(points)
        found = self._differences(points, chosen, against)
        self.runtime.progress(len(points), len(points) + 1, "report")
        rules = Rules(self.select_part, self.report_part, self.slack, self.draws, self.seed, self.shown)
        study = Study(points, measured, judges, chosen, against, found, foresight, self.runtime.lineage)
        content = describe(study, rules)
        header, lines = columns(judges), rows(points, measured, judges)
        write_csv(out / "comparison.csv", header, lines)
        (out / "comparison.json").write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8"
        )
        (out / "summary.txt").write_text(summary(content), encoding="utf-8")
        (out / "report.html").write_text(render(content), encoding="utf-8")
        self.runtime.table("comparison", header, lines)
        self._track(content, points, found)
        self.runtime.progress(len(points) + 1, len(points) + 1, "report written")

    def _reference(self, points: list[Point]) -> Point | None:
        methods = list(dict.fromkeys(point.method for point in points))
        if self.reference not in methods and self.reference != Compare.reference:
            raise BadInput(
                "reference", f"{self.reference!r} is no method of this comparison; it has {', '.join(methods)}"
            )
        return reference_point(points, self.reference, self.report_part)

    def _ordered(self, points: list[Point]) -> list[Point]:
        """First the methods that stay at the base policy, then the others in the given order; the points of a method by
        their strength. Without a KL they are ordered by their settings, since they may all take the same compute."""
        moved = {p.method for p in points if p.strength(self.report_part)[0] > 0}
        methods = sorted(dict.fromkeys(point.method for point in points), key=lambda method: method in moved)

        def along(point: Point) -> tuple[Any, ...]:
            kl, flops = point.strength(self.report_part)
            return methods.index(point.method), kl, [] if math.isfinite(kl) else settings_order(point), flops

        return sorted(points, key=along)

    def _differences(
        self, points: Sequence[Point], chosen: Mapping[str, Choice], against: Point | None
    ) -> list[Difference]:
        if against is None:
            return []
        try:
            return differences(points, chosen, against, self.report_part, draws=self.draws, seed=self.seed)
        except ValueError as error:
            raise BadInput(
                "points", f"on part {self.report_part!r}: {error}; compare points over the same prompts"
            ) from error

    def _track(self, content: dict[str, Any], points: Sequence[Point], found: Sequence[Difference]) -> None:
        values: dict[str, float] = {"points": len(points), "prompts": content["prompts"]}
        for d in found:
            values |= {f"{d.point.method}/gold_difference": d.gold.value, f"{d.point.method}/gold_low": d.gold.low}
            values |= {f"{d.point.method}/gold_high": d.gold.high, f"{d.point.method}/proxy_difference": d.proxy.value}
        self.runtime.metrics({name: value for name, value in values.items() if math.isfinite(value)})
        lines = [
            [
                entry["prompt"],
                point.method,
                settings_text(point.settings),
                response["text"],
                response["proxy"],
                response["gold"],
            ]
            for entry in content["generations"]
            for point, response in zip(points, entry["responses"], strict=True)
        ]
        self.runtime.table("generations", ["prompt", "method", "settings", "response", "proxy", "gold"], lines)
