"""Stage: judges compare the responses of two methods. Reads two folders with `generations.parquet`
(records.Generation) and one with `prompts.parquet`; writes `verdicts.parquet` (records.Verdict; judge by judge, pair by
pair, order by order) and `summary.json`.

    tilt run goal=[judge] judge=reward
"""

import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages import records
from stages.errors import BadInput, below
from stages.fields import check_types
from stages.judge.asking.cost import CHARACTERS_A_TOKEN, Cost, Expected, expected_cost
from stages.judge.seat import Seat
from stages.judge.verdicts.pair_judge import PairJudge, Session
from stages.judge.verdicts.pairs import canaries, pairs_of
from stages.judge.verdicts.summary import canary_summary, summary
from stages.records import Verdict
from stages.runtime import Runtime

_log = logging.getLogger(__name__)


@dataclass
class Judge:
    """Which of two responses to the same prompt does each judge prefer?

    Raises BadInput for what cannot be judged, with a judge's own field as `judges.<name>.<field>`; `SpendingStopped`
    (exit code 3) where money ends it. Answers are recorded one by one, so a second run goes on where the first ended.
    """

    generations: Path
    """Folder with the responses of the method that is judged, the candidate."""
    reference_generations: Path
    """Folder with the responses of the method it is compared with, the reference."""
    prompts: Path
    judges: dict[str, Any]
    """Name of a slot → `ApiJudge`, `RewardJudge`, a judge of your own, or a `Seat` with one of them. A slot that is
    null is left out."""
    parts: list[str] = field(default_factory=list)
    """Parts of the prompts that are judged; empty: all."""
    order: str = "both"
    """`both` (each pair twice), `seeded` (AlpacaEval's draw from the instruction), `as_is` (reference first). Judges on
    a `Seat` have an `order` and a `canary` of their own."""
    canary: int = 20
    """Number of prompts on which a null model is judged too; a sound judge lets it lose. 0: none."""
    canary_text: str = "I have no answer to this."
    """The null model's one answer to everything."""
    expected: Expected = field(default_factory=Expected)
    """How much there will be to judge. Only `estimate` reads it."""
    runtime: Runtime = field(default_factory=Runtime)

    @property
    def _seats(self) -> dict[str, Seat]:
        taken = {slot: judge for slot, judge in self.judges.items() if judge is not None}
        return {slot: Seat.of(judge, self.order, self.canary) for slot, judge in taken.items()}

    def _place(self, slot: str) -> str:
        """The path of the fields of a slot's judge in the stage's configuration."""
        return f"judges.{slot}.judge" if isinstance(self.judges[slot], Seat) else f"judges.{slot}"

    def run(self, out: Path) -> None:
        check_types(self)
        seats = self._seats
        if not seats:
            raise BadInput("judges", "no judge is named; give at least one, such as judges.main")
        self._check(seats)
        pairs = pairs_of(Path(self.generations), Path(self.reference_generations), Path(self.prompts), self.parts)
        requests = getattr(self.runtime, "requests", None) or Path(out).parent / "requests"
        verdicts: list[Verdict] = []
        figures: dict[str, float] = {}
        report: dict[str, Any] = {"order": self.order, "judges": {}}
        for number, (slot, seat) in enumerate(seats.items()):
            asked = pairs + canaries(pairs, seat.canary, self.canary_text)
            session = Session(Path(requests), self._progress(number))
            with below(self._place(slot)):
                found = seat.judge.decide(asked, seat.order, session)
            verdicts += found
            own = {"order": seat.order} if seat is self.judges[slot] else {}
            said = self._judged(slot, found, session, figures)
            report["judges"][slot] = {"name": seat.judge.name, **own, **said}
        if len(seats) > 1:
            report["agreement"] = _agreement(verdicts)
            for pair, values in report["agreement"].items():
                figures |= {f"agreement/{pair}/{name}": values[name] for name in ("raw", "kappa") if name in values}
        costs = [verdict.cost for verdict in verdicts if verdict.cost is not None]
        if len(costs) == len(verdicts):
            figures["dollars"] = math.fsum(costs)
        records.write(out / "verdicts.parquet", Verdict, verdicts)
        (out / "summary.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
        self.runtime.metrics(figures)

    def _check(self, seats: Mapping[str, Seat]) -> None:
        """Looks at every judge before the first one is asked, so that none is paid where another one cannot be used."""
        slots: dict[str, str] = {}
        for slot, seat in seats.items():
            seat.check(f"judges.{slot}." if seat is self.judges[slot] else "")
            judge, place = seat.judge, self._place(slot)
            if not isinstance(judge, PairJudge):
                raise BadInput(place, f"{type(judge).__name__} is no judge: it has no decide(pairs, order, session)")
            if not isinstance(judge.name, str) or not judge.name.strip() or not judge.name.isprintable():
                raise BadInput(f"{place}.name", f"{judge.name!r} is no name; give one that tables can show")
            if judge.name in slots:
                raise BadInput(f"{place}.name", f"judges.{slots[judge.name]} is named {judge.name!r} too; give another")
            slots[judge.name] = slot
            if callable(check := getattr(judge, "check", None)):
                with below(place):
                    check()

    def estimate(self) -> dict[str, Any]:
        """What the verdicts will cost, before anything has run: `{dollars, calls, tokens, note}`, no network.

        Payload folders need not exist; judges and `expected` may still be mappings of their fields. `dollars` is None
        where a model's price or the number of items is not known; `note` says so. An upper estimate: answers that are
        recorded already cost nothing.
        """
        expected: Any = self.expected
        if isinstance(expected, Mapping):
            expected = Expected(**{name: value for name, value in expected.items() if name != "_target_"})
        items = expected.items(self.parts)
        if items is None:
            return {"dollars": None, "calls": 0, "tokens": 0, "note": "the number of prompts is not known: no estimate"}
        found: list[Cost] = [
            expected_cost(
                seat.judge,
                items=items,
                order=seat.order,
                canary=min(seat.canary, items // expected.samples),
                output_characters=expected.response_tokens * CHARACTERS_A_TOKEN,
            )
            for seat in self._seats.values()
        ]
        dollars = [one.dollars for one in found]
        return {
            "dollars": None if None in dollars else math.fsum(d for d in dollars if d is not None),
            "calls": sum(one.requests for one in found),
            "tokens": sum(one.prompt_tokens + one.completion_tokens for one in found),
            "note": "; ".join(dict.fromkeys(one.note for one in found)),
        }

    def _progress(self, number: int) -> Any:
        def progress(done: int, total: int, note: str) -> None:
            share = (number + done / max(1, total)) / len(self._seats)
            self.runtime.progress(round(1000 * share), 1000, note)

        return progress

    def _judged(self, slot: str, found: list[Verdict], session: Session, figures: dict[str, float]) -> dict[str, Any]:
        """Adds a judge's figures, and returns what its summary says. Warns where the canary did not lose."""
        prefix = "" if len(self._seats) == 1 else f"{slot}/"
        real = [v for v in found if not v.canary]
        parts = {part: summary([v for v in real if v.part == part]) for part in dict.fromkeys(v.part for v in real)}
        said: dict[str, Any] = {"all": summary(real), "parts": parts, "warnings": []}
        if canary := [v for v in found if v.canary]:
            said["canary"] = canary_summary(canary)
            if not said["canary"]["lost"]:
                said["warnings"].append(_canary_warning(slot, said["canary"]))
        if failures := int(said["all"]["failures"]):
            low, high = said["all"]["win_rate_low"], said["all"]["win_rate_high"]
            said["warnings"].append(
                f"judges.{slot}: {failures} of {len(real)} verdicts failed; were they all lost or all won, the win "
                f"rate would be {low:.1f} or {high:.1f}"
            )
        for warning in said["warnings"]:
            _log.warning(warning)
        figures |= {f"{prefix}{name}": value for name, value in said["all"].items()}
        for part, values in parts.items() if len(parts) > 1 else ():
            figures |= {f"{prefix}{part}/{name}": value for name, value in values.items()}
        figures |= {f"{prefix}canary/{name}": value for name, value in said.get("canary", {}).items()}
        figures |= {f"{prefix}requests/{name}": value for name, value in session.figures.items() if value == value}
        return said


def _canary_warning(slot: str, canary: dict[str, float]) -> str:
    if "win_rate" not in canary:
        return f"judges.{slot}: no verdict on the null model came; nothing shows that this judge tells responses apart"
    return (
        f"judges.{slot}: a null model that answers everything alike wins {canary['win_rate']:.0f} % of "
        f"{canary['pairs']:.0f} prompts (up to {canary['high']:.0f} % by chance); it has to lose: distrust this judge"
    )


def _agreement(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Agreement of every two judges, in points, by `one~other`; left out where they have no pair in common."""
    from stages.judge.statistics.agreement import (
        of_verdicts,  # scipy.stats: half a second that a plan need not wait for
    )

    said = {}
    for one, other in itertools.combinations(dict.fromkeys(v.judge for v in verdicts), 2):
        if (found := of_verdicts(verdicts, one, other)) is not None:
            kappa = {"kappa": found.kappa.value, "kappa_low": found.kappa.low, "kappa_high": found.kappa.high}
            said[f"{one}~{other}"] = {
                "items": found.items,
                "raw": 100 * found.raw.value,
                "base_rates": dict(zip((one, other), found.base_rates, strict=True)),
            } | {name: value for name, value in kappa.items() if math.isfinite(value)}
    return said
