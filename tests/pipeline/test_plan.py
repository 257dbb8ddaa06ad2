"""What would run and why; and what merging a sweep saves, on the project's own configuration."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

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


def test_plan_names_the_field_the_input_and_the_function(toy, edit: Callable[[Path, str, str], None]) -> None:
    assert toy.states()["first"] == ("run", "never ran")
    toy.tilt("run")
    assert {state for state, _ in toy.states().values()} == {"reuse"}
    changed = toy.states("first.word=oh")
    assert changed["first"] == ("stale", "word: well → oh")
    assert changed["second"] == ("stale", "input first changed")
    edit(toy.path / "toy_helper.py", "return word", "# louder\n    return word")
    assert {state for state, _ in toy.states().values()} == {"reuse"}  # a comment is not code
    edit(toy.path / "toy_helper.py", "word.upper()", "word.upper() + '!'")
    assert toy.states()["first"] == ("stale", "code: toy_helper.shout")


def test_a_changed_default_of_a_file_is_named_by_its_field(toy, edit: Callable[[Path, str, str], None]) -> None:
    toy.tilt("run")
    edit(toy.path / "conf/toy.yaml", "first: {word: well, how: well}", "first: {word: oh, how: well}")
    assert toy.states()["first"] == ("stale", "word: well → oh")
