"""A judge that has an order and null models of its own."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stages.errors import BadInput
from stages.judge.reward_judge import RewardJudge
from stages.judge.seat import Seat
from tests.stages.judge.judging import Length, Warm, api_judge, longer_wins, write_methods
from tests.stages.servers.loopback import Loopback


def test_a_judge_on_a_seat_has_an_order_and_null_models_of_its_own(tmp_path: Path, run_stage) -> None:
    payloads = write_methods(tmp_path, [f"superb {i}" for i in range(6)], ["b"] * 6)
    words = RewardJudge(reward=Warm(), name="words")
    with Loopback(longer_wins) as server:
        seat = Seat(api_judge(server.base_url), order="as_is", canary=2)
        verdicts, metrics = run_stage(payloads, {"main": words, "second": seat}, canary=5)
        seat.judge.mode = "vibes"
        with pytest.raises(BadInput) as refused:
            run_stage(payloads, {"main": words, "second": seat})
    assert refused.value.field == "judges.second.judge.mode"
    assert sorted(Counter((v.judge, v.order, v.canary) for v in verdicts).items()) == [
        (("loop", "reference_first", False), 6), (("loop", "reference_first", True), 2),
        (("words", "either", False), 6), (("words", "either", True), 5),
    ]  # fmt: skip
    assert (metrics["main/canary/pairs"], metrics["second/canary/pairs"]) == (5, 2)
    said = json.loads((tmp_path / "runs" / "0" / "summary.json").read_text())
    assert (said["order"], said["judges"]["second"]["order"]) == ("both", "as_is")


@pytest.mark.parametrize(("change", "field"), [({"order": "random"}, "order"), ({"canary": -1}, "canary")])
def test_the_fields_of_a_seat(tmp_path: Path, run_stage, change: dict[str, Any], field: str) -> None:
    payloads = write_methods(tmp_path, ["a"], ["b"])
    with pytest.raises(BadInput) as refused:
        run_stage(payloads, {"second": Seat(RewardJudge(reward=Length()), **change)})
    assert refused.value.field == f"judges.second.{field}"


def test_a_bare_judge_takes_the_order_and_the_null_models_of_the_stage() -> None:
    judge = RewardJudge(reward=Length())
    assert Seat.of(judge, "seeded", 3) == Seat(judge, "seeded", 3)
    own = Seat(judge, "as_is", 1)
    assert Seat.of(own, "seeded", 3) is own


def test_a_seat_that_is_still_a_configuration_is_read_as_one() -> None:
    fields = {"_target_": "stages.judge.seat.Seat", "judge": {"model": "m"}, "order": "as_is", "canary": 2}
    assert Seat.of(fields, "both", 20) == Seat({"model": "m"}, "as_is", 2)
    judge = {"_target_": "stages.judge.api_judge.ApiJudge", "model": "m"}
    assert Seat.of(judge, "both", 20) == Seat(judge, "both", 20)
