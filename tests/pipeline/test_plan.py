"""`tilt plan` on the project's own configuration: what merging a sweep saves, and what it would cost."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TILT = str(Path(sys.executable).with_name("tilt"))


def planned(tmp_path: Path, *arguments: str) -> dict:
    done = subprocess.run(
        [TILT, "plan", "--json", f"store={tmp_path}/store", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_eight_points_share_all_that_their_values_do_not_reach(tmp_path: Path) -> None:
    sweep = ["-m", "method=vas", "method.beta=0.5,1,2,4", "value.td_lambda=0.9,1.0"]
    told = planned(tmp_path, *sweep)
    counted = Counter(stage["stage"] for stage in told["stages"])
    assert told["points"] == 8
    assert counted["value"] == 2
    assert (counted["decode"], counted["score"], counted["compare"]) == (8, 8, 1)
    assert {n for stage, n in counted.items() if stage not in ("value", "decode", "score")} == {1}
    # eight times all but the comparison: every point alone needs the same stages
    assert told["naive"] == 8 * (len(counted) - 1) + 1
    assert told["unique"] == sum(counted.values()) == len(told["stages"])


def test_a_stage_is_named_by_what_its_points_have_in_common(toy) -> None:
    out = toy.tilt("plan", "-m", "voice.word=a,b", "first.word=x,y").stdout
    named = [line[2:].rpartition("?")[0].strip() for line in out.splitlines()[:7]]
    assert sorted(named) == [
        "compare",
        "first (word=x)",
        "first (word=y)",
        "second (word=a word=x)",
        "second (word=a word=y)",
        "second (word=b word=x)",
        "second (word=b word=y)",
    ]


@pytest.mark.parametrize(
    ("model", "dollars"),
    [("gpt-4.1-2025-04-14", True), ("a-model-that-nobody-priced", False)],
)
def test_paid_answers_are_counted_and_priced_where_the_price_is_known(
    tmp_path: Path, model: str, dollars: bool
) -> None:
    told = planned(tmp_path, "goal=[judge]", "judge=openai", f"judge.model={model}")
    (judge,) = [stage for stage in told["stages"] if stage["stage"] == "judge"]
    if dollars:
        assert judge["dollars"] > 0
        assert told["dollars"] == judge["dollars"]
    else:
        assert judge["dollars"] is None


def test_the_toys_estimate_adds_up(toy) -> None:
    out = toy.tilt("plan", "goal=[paid]").stdout
    assert "paid answers: 200 calls, about $2.00" in out  # 200 questions at 0.01
    assert "stages without a price: 1" in toy.tilt("plan", "goal=[paid]", "stages.paid.price=null").stdout
    assert "paid answers" not in toy.tilt("plan").stdout
