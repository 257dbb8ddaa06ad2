"""The comparison of many points: which method, how strongly, and what it is worth.

Reads `scores.parquet` (records.Score) of every point, and `verdicts.parquet` (judge.verdicts.Verdict) where a judge
decided; writes `comparison.csv` (one row a point), `summary.txt` (the table for the terminal), `comparison.json` (all
figures) and `report.html` (one self-contained page).
Alone: `tilt run -m method=base,bon,vas` (its goal is `compare` unless another is named).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stages.errors import BadInput
from stages.runtime import Runtime
from sweeps.choice import Choice, Difference, choose, differences, named, reference_point, verdict
from sweeps.judged import Judged, judge_agreements, judge_points, said_of
from sweeps.points import Figures, Point, figures, load_points, shown_settings
from sweeps.report import render
from sweeps.summary import summary
from sweeps.table import columns, rows, settings_text, write_csv


@dataclass
class Compare:
    """Compares points over the same prompts.

    Every method with several points gets one chosen setting (`sweeps.choice.choose`), which sees the proxy on
    `select_part` alone; everything reported comes from `report_part`. Raises BadInput for `points`, `select_part`,
    `report_part` and `draws` that cannot be used.
    """

    points: list[dict[str, Any]]
    """One mapping a point: `label`, `method`, `settings`, `score` (payload folder of its score stage), and `verdicts`
    (that of its judge stage; absent or null: nobody judged it)."""
    select_part: str = "validation"
    """Settings are chosen here; empty: none is chosen."""
    report_part: str = "test"
    slack: float = 0.0
    """Standard errors that a setting may lie below the best and still be chosen for its smaller KL."""
    reference: str = "bon"
    """The method that the others are held against, at its strongest setting."""
    draws: int = 2000
    """Bootstrap draws behind every interval; 1,000 at least."""
    seed: int = 0
    shown: int = 5
    """Prompts whose generations the report shows, drawn at random."""
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        if self.draws < 1000:
            raise BadInput("draws", f"{self.draws} are too few for a 95 % interval; 1,000 at least")
        if not self.slack >= 0:
            raise BadInput("slack", f"{self.slack} is not a number of standard errors, 0 or more")
        if self.select_part == self.report_part:
            raise BadInput("select_part", f"{self.select_part!r} is also the part of the report; choose on another one")
        points = self._ordered(load_points(self.points, self.report_part))
        judges = judge_points([point.verdicts for point in points], draws=self.draws, seed=self.seed)
        measured = []
        for done, point in enumerate(points):
            self.runtime.progress(done, len(points) + 1, point.label)
            measured.append(figures(point, self.report_part, draws=self.draws, seed=self.seed))
        chosen = choose(points, self.select_part, self.slack) if self.select_part else {}
        against = reference_point(points, self.reference, self.report_part)
        found = self._differences(points, chosen, against)
        self.runtime.progress(len(points), len(points) + 1, "report")
        content = self._content(points, measured, judges, chosen, against, found)
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

    def _ordered(self, points: list[Point]) -> list[Point]:
        """What does not move away from the base policy first, then methods as given, each along its own strength."""
        moved = {p.method for p in points if p.strength(self.report_part)[0] > 0}
        methods = sorted(dict.fromkeys(point.method for point in points), key=lambda method: method in moved)
        return sorted(points, key=lambda p: (methods.index(p.method), *p.strength(self.report_part)))

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

    def _content(
        self,
        points: Sequence[Point],
        measured: Sequence[Figures],
        judges: Sequence[Judged],
        chosen: Mapping[str, Choice],
        against: Point | None,
        found: Sequence[Difference],
    ) -> dict[str, Any]:
        """Everything that the page shows, as plain JSON; a figure that does not exist is null."""
        place = {id(point): number for number, point in enumerate(points)}
        picked = {id(choice.point) for choice in chosen.values()}
        spoken_of = [d.point for d in found if d.point.method in chosen] or [d.point for d in found]
        names = {place[id(p)]: named(p, points) for p in [*spoken_of, *([against] if against else [])]}
        sentences = [verdict(points, chosen, found, self.report_part), *(said_of(judged, names) for judged in judges)]
        content = {
            "verdict": " ".join(filter(None, sentences)),
            "select_part": self.select_part,
            "report_part": self.report_part,
            "draws": self.draws,
            "seed": self.seed,
            "prompts": max(f.proxy.prompts for f in measured),
            "reference": None if against is None else place[id(against)],
            "points": [
                {
                    "label": point.label,
                    "method": point.method,
                    "name": named(point, points),
                    "settings": dict(point.settings),
                    "strength": shown_settings(point, points),
                    "chosen": id(point) in picked,
                    "alone": point.method not in chosen,
                    "kl_kind": point.kl_kind,
                    **asdict(figure),
                }
                for point, figure in zip(points, measured, strict=True)
            ],
            "slack": self.slack,
            "choices": [
                {
                    "method": method,
                    "point": place[id(choice.point)],
                    "best": place[id(choice.best)],
                    "deficit": choice.deficit,
                    "allowed": choice.allowed,
                    "prompts": choice.prompts,
                }
                for method, choice in chosen.items()
            ],
            "differences": [
                {
                    "point": place[id(d.point)],
                    "reference": place[id(d.reference)],
                    "proxy": asdict(d.proxy),
                    "gold": asdict(d.gold),
                    "detectable": d.gold.detectable,
                    "judges": [self._judged_difference(judged, place, d) for judged in judges],
                }
                for d in found
            ],
            "judges": [
                {
                    "judge": judged.judge,
                    "reference": judged.reference,
                    "points": [None if point is None else asdict(point) for point in judged.points],
                    "canary": judged.canary,
                }
                for judged in judges
            ],
            "agreements": judge_agreements([point.verdicts for point in points], draws=self.draws, seed=self.seed),
            "generations": self._generations(points),
            "lineage": [dict(node) for node in self.runtime.lineage],
        }
        return _plain(content)

    def _judged_difference(self, judged: Judged, place: Mapping[int, int], d: Difference) -> dict[str, Any] | None:
        ours, theirs = place[id(d.point)], place[id(d.reference)]
        found = judged.difference(ours, theirs, draws=self.draws, seed=self.seed)
        return None if found is None else asdict(found)

    def _generations(self, points: Sequence[Point]) -> list[dict[str, Any]]:
        """The first response of every point to the same few prompts, drawn by seed and not picked."""
        answers = [
            {s.prompt_id: s for s in sorted(point.parts[self.report_part], key=lambda s: -s.sample)} for point in points
        ]
        shared = sorted(set.intersection(*(set(answer) for answer in answers)))
        drawn = np.random.default_rng(self.seed).permutation(len(shared))[: self.shown]
        return [
            {
                "prompt_id": shared[row],
                "prompt": answers[0][shared[row]].prompt,
                "responses": [
                    {
                        "text": score.text,
                        "proxy": score.rewards["proxy"],
                        "gold": score.rewards["gold"],
                        "length": score.length,
                        "finished": score.finished,
                    }
                    for score in (answer[shared[row]] for answer in answers)
                ],
            }
            for row in sorted(drawn)
        ]

    def _track(self, content: dict[str, Any], points: Sequence[Point], found: Sequence[Difference]) -> None:
        values: dict[str, float] = {"points": len(points), "prompts": content["prompts"]}
        for d in found:
            values |= {f"{d.point.method}/gold_difference": d.gold.mean, f"{d.point.method}/gold_low": d.gold.low}
            values |= {f"{d.point.method}/gold_high": d.gold.high, f"{d.point.method}/proxy_difference": d.proxy.mean}
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


def _plain(value: Any) -> Any:
    """JSON's own types, with null for what is not a finite number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
