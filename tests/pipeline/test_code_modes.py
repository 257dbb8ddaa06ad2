"""`code: track | pin | ignore` and `version`: what of a stage's source counts; and source that changes under a run."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import code

Edit = Callable[[Path, str, str], None]
GOAL = ["goal=[first]"]


def planned(toy, *arguments: str) -> tuple[str, str]:
    (stage,) = json.loads(toy.tilt("plan", "--json", *GOAL, *arguments).stdout)["stages"]
    return stage["state"], stage["reason"]


def louder(toy, edit: Edit) -> None:
    edit(toy.path / "toy_helper.py", "word.upper()", "word.upper() + '!'")


def test_a_pinned_stage_keeps_the_result_that_it_has(toy, edit: Edit) -> None:
    toy.tilt("run", *GOAL)
    louder(toy, edit)
    assert planned(toy) == ("stale", "code: toy_helper.shout")
    # said after the edit, it still finds what ran before it
    assert planned(toy, "+stages.first.code=pin") == (
        "reuse",
        "code not tracked; changed since: toy_helper.shout",
    )
    assert planned(toy, "+stages.first.code=pin", "first.word=oh") == (
        "stale",  # no result of this configuration to keep: it would run with the code as it stands
        "word: well → oh; code: toy_helper.shout",
    )


def test_a_pinned_stage_that_never_ran_runs_with_the_code_as_it_stands(toy) -> None:
    assert planned(toy, "+stages.first.code=pin") == ("run", "never ran")
    toy.tilt("run", *GOAL, "+stages.first.code=pin")
    assert planned(toy)[0] == "reuse"  # the same key as one that is tracked


def test_a_stage_that_ignores_its_code_never_goes_stale_by_it(toy, edit: Edit) -> None:
    toy.tilt("run", *GOAL, "+stages.first.code=ignore")
    louder(toy, edit)
    state, reason = planned(toy, "+stages.first.code=ignore")
    assert state == "reuse"
    assert "toy_helper.shout" in reason  # it is said all the same
    assert planned(toy)[0] == "stale"


def test_a_version_is_raised_by_hand_where_no_code_shows_the_change(toy) -> None:
    toy.tilt("run", *GOAL)
    assert planned(toy, "+stages.first.version=1") == ("stale", "version: 0 → 1")
    assert toy.tilt("run", *GOAL, "+stages.first.version=1").returncode == 0


def test_another_word_for_it_is_refused(toy) -> None:
    outcome = toy.tilt("plan", *GOAL, "+stages.first.code=freeze")
    assert outcome.returncode == 2
    assert outcome.stderr == "tilt: stages.first.code: freeze is not one of track, pin, ignore\n"


def test_source_that_was_edited_between_plan_and_start_is_not_published_under_the_old_key(toy) -> None:
    # `first` takes a second, in which it edits the source that `second` will run
    helper = toy.path / "toy_helper.py"
    (toy.path / "meddler.py").write_text(
        "import dataclasses, pathlib\n"
        "@dataclasses.dataclass\n"
        "class Meddle:\n"
        "    def run(self, out):\n"
        f"        path = pathlib.Path({str(helper)!r})\n"
        "        path.write_text(path.read_text().replace('word.upper()', 'word.lower()'))\n"
        "        (out / 'said.txt').write_text('done')\n"
    )
    arguments = ["goal=[second]", "stages.first=null", "+stages.meddle={_target_: meddler.Meddle}"]
    arguments += ["stages.second.heard=${stage:meddle}"]
    outcome = toy.tilt("run", *arguments)
    assert outcome.returncode == 1, outcome.stdout
    assert "toy_helper was edited after this run was planned; run again" in outcome.stdout
    assert toy.tilt("run", *arguments).returncode == 0


def test_a_touched_file_is_not_an_edited_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "touched_module.py"
    file.write_text("def f():\n    return 1\n")
    read = {"touched_module": code.definitions("touched_module")}
    seen = code.stamps(read)
    time.sleep(0.01)
    file.write_text("# a comment\ndef f():\n    return 1\n")
    assert code.changed_since(read, seen) == []
    file.write_text("def f():\n    return 2\n")
    assert code.changed_since(read, seen) == ["touched_module"]
    file.unlink()
    assert code.changed_since(read, seen) == ["touched_module"]
