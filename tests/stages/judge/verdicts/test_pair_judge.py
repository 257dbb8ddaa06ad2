"""A judge of one's own: a class with a name and `decide`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stages.errors import BadInput
from stages.judge.reward_judge import RewardJudge
from stages.judge.verdicts.pair_judge import PairJudge, Session
from stages.records import Verdict
from tests.stages.judge.judging import Length, api_judge, write_methods


@dataclass
class Coin:
    """Says that all are equal."""

    name: str = "coin"

    def decide(self, pairs: Any, order: str, session: Session) -> list[Verdict]:
        session.progress(1, 2, "tossing")
        session.figures["tosses"] = len(pairs)
        return [
            Verdict(
                prompt_id=pair.prompt.id, part=pair.prompt.part, sample=pair.sample, judge=self.name,
                candidate=pair.candidate_method, reference=pair.reference_method, canary=pair.canary, order="either",
                preference=1.5, outcome="verdict", problem="", candidate_chars=0, reference_chars=0, answer=order,
                asked=0, model="", prompt_tokens=0, completion_tokens=0, cost=0.0, request="",
            )
            for pair in pairs
        ]  # fmt: skip


def test_the_shipped_judges_are_judges() -> None:
    assert isinstance(api_judge("http://127.0.0.1:9/v1"), PairJudge)
    assert isinstance(RewardJudge(reward=Length()), PairJudge)
    assert isinstance(Coin(), PairJudge)
    assert not isinstance(Length(), PairJudge)


def test_the_stage_takes_a_judge_of_your_own(tmp_path: Path, run_stage) -> None:
    verdicts, metrics = run_stage(write_methods(tmp_path, ["a", "b"], ["x", "y"]), {"main": Coin()}, order="as_is")
    assert [(v.prompt_id, v.judge, v.answer) for v in verdicts] == [
        ("p0000", "coin", "as_is"),
        ("p0001", "coin", "as_is"),
    ]
    assert metrics["win_rate"] == 50
    assert metrics["requests/tosses"] == 2


def test_what_cannot_decide_is_no_judge(tmp_path: Path, run_stage) -> None:
    with pytest.raises(BadInput, match=r"judges\.main: Length is no judge: it has no decide\(pairs, order, session\)"):
        run_stage(write_methods(tmp_path, ["a"], ["x"]), {"main": Length()})


def test_a_session_reports_to_nobody_unless_somebody_asks(tmp_path: Path) -> None:
    one, other = Session(tmp_path), Session(tmp_path)
    one.progress(1, 2, "note")
    one.figures["a"] = 1.0
    assert other.figures == {}
