"""What a stage is going to pay, asked of the stage."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.expense import Expense, expense

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


def told(small, **fields: Any) -> Expense | None:
    graph = small.graph(
        goal=["paid"], stages={"paid": {"_target_": "toy_stages.Paid", "questions": 3, "price": 2.0} | fields}
    )
    (node,) = graph.nodes.values()
    return expense(node, small.store)


def test_a_stage_says_what_it_is_going_to_pay(small) -> None:
    assert told(small) == Expense(6.0, 3)  # 3 questions at 2 dollars
    assert told(small, price=None) == Expense(None, 3)
    assert told(small, resources={"cores": 1}) == Expense(6.0, 3)  # no field of its class


def test_what_goes_wrong_is_a_note_and_keeps_nobody_from_planning(small) -> None:
    found = told(small, questions="three")
    assert found is not None
    assert (found.dollars, found.calls) == (None, 0)
    assert found.note.startswith("no estimate: TypeError: ")


def test_a_stage_that_pays_nothing_is_not_asked(small) -> None:
    graph = small.graph(goal=["first"])
    assert [expense(node, small.store) for node in graph.nodes.values()] == [None]
