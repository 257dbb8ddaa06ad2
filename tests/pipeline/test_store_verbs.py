"""Verbs about the store, as a user runs them."""

import json
import os
import time
from pathlib import Path

import pytest


def payload(toy, word: str) -> Path:
    found = [path for path in (toy.path / "store/objects").glob("*/*/payload/said.txt") if word in path.read_text()]
    assert len(found) == 1
    return found[0]


def test_verify_finds_a_flipped_byte_and_takes_the_object_out_of_use(toy) -> None:
    toy.tilt("run")
    assert "3 objects are whole, 0 were not" in toy.tilt("verify").stdout
    said = payload(toy, "HELLO")
    said.chmod(0o644)
    said.write_text(said.read_text().replace("HELLO", "HALLO"))  # the same size
    assert toy.tilt("verify", "--quick").returncode == 0  # sizes alone cannot tell
    found = toy.tilt("verify")
    assert found.returncode == 1
    assert "said.txt has other bytes than were published; moved to" in found.stdout
    toy.executed()
    toy.tilt("run")
    assert toy.executed() == ["hello"]


def test_force_forgets_a_stage_and_with_downstream_what_depends_on_it(toy) -> None:
    toy.tilt("run")
    toy.executed()
    assert "second: will run again" in toy.tilt("force", "second").stdout
    toy.tilt("run")
    assert toy.executed() == ["hello"]
    toy.tilt("force", "first", "--downstream")
    toy.tilt("run")
    assert toy.executed() == ["well", "hello"]
    refused = toy.tilt("force", "secnod")
    assert refused.returncode == 2
    assert "did you mean 'second'?" in refused.stderr


def test_explain_tells_what_a_key_is_made_of_and_what_tells_two_apart(toy) -> None:
    toy.tilt("run", "-m", "voice.word=hello,salut")
    planned = json.loads(toy.tilt("plan", "--json", "-m", "voice.word=hello,salut").stdout)["stages"]
    hello, salut = [stage["key"] for stage in planned if stage["stage"] == "second"]
    told = toy.tilt("explain", hello[:10]).stdout
    assert "config   word = hello" in told
    assert "metric   letters = 5" in told
    assert toy.tilt("explain", hello[:10], salut[:10]).stdout.strip() == "word: hello → salut"
    assert toy.tilt("explain", "0" * 12).returncode == 2


def test_gc_keeps_what_runs_reach_and_removes_the_rest(toy) -> None:
    toy.tilt("run", "voice.word=hello")
    toy.tilt("run", "voice.word=salut")
    for root in (toy.path / "store/roots").glob("*.json"):
        content = json.loads(root.read_text())
        if content["started"] == min(json.loads(p.read_text())["started"] for p in root.parent.glob("*.json")):
            root.write_text(json.dumps(content | {"started": time.time() - 40 * 86400}))
            break
    left_behind = toy.path / "store/staging" / f"{'f' * 64}.dead-1-2"
    left_behind.mkdir()
    dry = toy.tilt("gc", "--keep-runs", "30d", "--dry-run")
    assert "would remove 2 objects and 1 abandoned attempts" in dry.stdout
    assert left_behind.exists()
    assert "removed 2 objects and 1 abandoned attempts" in toy.tilt("gc", "--keep-runs", "30d").stdout
    assert not left_behind.exists()
    toy.executed()
    toy.tilt("run", "voice.word=salut")
    assert toy.executed() == []  # the younger run's results are all there
    toy.tilt("run", "voice.word=hello")
    assert toy.executed() == ["hello"]  # its `first` was shared with the younger run


@pytest.mark.parametrize("verb", ["pin", "unpin"])
def test_a_pin_whose_name_is_no_file_s_is_refused(toy, verb: str) -> None:
    outcome = toy.tilt(verb, "name=a/b")
    assert outcome.returncode == 2
    assert outcome.stderr == "tilt: name: a/b cannot name a pin, which is a file of the store; leave out the /\n"


@pytest.mark.parametrize("verb", ["run", "gc"])
def test_a_store_that_is_none_is_named(toy, verb: str) -> None:
    outcome = toy.tilt(verb, "store=null")
    assert outcome.returncode == 2
    assert outcome.stderr == "tilt: store: null is not a folder\n"


def test_logs_show_what_a_stage_printed_even_when_it_failed(toy) -> None:
    toy.tilt("run", "voice.how=badly")
    assert "the voice broke" in toy.tilt("logs", "second", "voice.how=badly").stdout


def test_an_object_that_lost_a_file_is_never_used(toy) -> None:
    toy.tilt("run")
    toy.executed()
    said = next(
        path for path in (toy.path / "store/objects").glob("*/*/payload/said.txt") if "HELLO" in path.read_text()
    )
    os.chmod(said.parent, 0o755)
    said.unlink()
    assert toy.states()["second"] == ("stale", "its object is damaged")
    toy.tilt("run")
    assert toy.executed() == ["hello"]


def test_a_flipped_byte_is_found_and_its_object_not_used_again(toy) -> None:
    toy.tilt("run")
    toy.executed()
    said = next(
        path for path in (toy.path / "store/objects").glob("*/*/payload/said.txt") if "HELLO" in path.read_text()
    )
    os.chmod(said, 0o644)
    said.write_text(said.read_text().replace("HELLO", "HELLP"))
    assert toy.tilt("verify", "--quick").returncode == 0  # the size is what it was
    found = toy.tilt("verify")
    assert found.returncode == 1
    assert "said.txt has other bytes than were published; moved to" in found.stdout
    assert toy.states()["second"][0] != "reuse"
    toy.tilt("run")
    assert toy.executed() == ["hello"]
