"""Stages in shards: each is cached by itself, the whole is what it would have been without."""

import json

GOAL = ["goal=[after]"]
SHARDED = [*GOAL, "+stages.squares.resources.shards=3"]


def whole(toy) -> dict[str, str]:
    """{key: content} of published squares, the merged ones and those that never were split."""
    found = {}
    for manifest in (toy.path / "store/objects").glob("*/*/manifest.json"):
        told = json.loads(manifest.read_text())
        if told["stage"] == "squares" and "shard" not in told["preimage"]:
            found[told["key"]] = (manifest.parent / "payload/said.txt").read_text()
    return found


def test_shards_change_neither_the_key_nor_the_result(toy) -> None:
    assert toy.tilt("run", *GOAL).returncode == 0
    unsplit = whole(toy)
    toy.tilt("force", "squares", "--downstream", *GOAL)
    assert toy.executed() == ["whole"]
    outcome = toy.tilt("run", *SHARDED)
    assert outcome.returncode == 0, outcome.stdout
    assert sorted(toy.executed()) == ["shard0", "shard1", "shard2"]
    assert whole(toy) == unsplit
    # 10 numbers in 3 shards: 0…2, 3…5, 6…9
    assert list(unsplit.values()) == ["0\n1\n4\n9\n16\n25\n36\n49\n64\n81\n"]
    toy.tilt("run", *GOAL)  # without shards it is the same stage, and is there
    assert toy.executed() == []


def test_a_merged_stage_took_what_its_shards_took(toy) -> None:
    slow = [*SHARDED, "+stages.squares.seconds=0.4"]
    assert toy.tilt("run", *slow).returncode == 0
    planned = json.loads(toy.tilt("plan", "--json", *slow).stdout)
    (squares,) = [stage for stage in planned["stages"] if stage["stage"] == "squares"]
    assert 3 * 0.4 <= squares["seconds"] < 3 * 0.4 + 1  # three shards of 0.4 s each
    toy.tilt("force", "squares", *slow)
    toy.tilt("run", *slow)  # the shards are reused: it took them as long as ever
    planned = json.loads(toy.tilt("plan", "--json", *slow).stdout)
    (again,) = [stage for stage in planned["stages"] if stage["stage"] == "squares"]
    assert abs(again["seconds"] - squares["seconds"]) < 0.3


def test_a_lost_shard_costs_that_shard(toy) -> None:
    broken = [*SHARDED, "+stages.squares.bad=1"]
    outcome = toy.tilt("run", *broken)
    assert outcome.returncode == 1
    assert "squares 2/3" in outcome.stdout
    assert "skipped after it: 2" in outcome.stdout  # the whole, and what hears it
    assert sorted(toy.executed()) == ["shard0", "shard2"]
    planned = json.loads(toy.tilt("plan", "--json", *broken).stdout)
    assert [stage["shards"] for stage in planned["stages"]] == [[2, 3], None]
    assert planned["unique"] == 2  # shards are ways to a stage, not stages
    assert (planned["stages"][0]["state"], planned["stages"][0]["reason"]) == ("run", "never ran")
    toy.witness.with_name("witness.txt.mended").touch()
    assert toy.tilt("run", *broken).returncode == 0
    assert toy.executed() == ["shard1"]


def test_shards_are_kept_from_gc_only_until_the_whole_is_there(toy) -> None:
    broken = [*SHARDED, "+stages.squares.bad=1"]
    toy.tilt("run", *broken)
    assert "removed 0 objects" in toy.tilt("gc", "--keep-runs", "1d", *GOAL).stdout
    toy.witness.with_name("witness.txt.mended").touch()
    toy.tilt("run", *broken)
    assert "removed 3 objects" in toy.tilt("gc", "--keep-runs", "1d", *GOAL).stdout
    toy.executed()
    toy.tilt("run", *broken)
    assert toy.executed() == []
