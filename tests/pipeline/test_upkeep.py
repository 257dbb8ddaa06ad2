"""What may go from a store, and what is kept."""

import json
import time

import pytest

from pipeline import upkeep
from pipeline.errors import UsageError
from pipeline.store import Store


def test_gc_never_touches_what_is_being_worked_on(toy) -> None:
    toy.tilt("run")
    store = Store(toy.path / "store")
    key = next((toy.path / "store/objects").glob("*/*")).name
    with store.lease(key):
        objects, _ = upkeep.collect(store, 0.0, dry_run=False)
    assert key not in objects
    assert store.find(key)


@pytest.mark.parametrize(("age", "expected"), [("30d", 2592000), ("12h", 43200), ("0s", 0), ("1.5m", 90)])
def test_ages(age: str, expected: float) -> None:
    assert upkeep.seconds(age) == expected


@pytest.mark.parametrize("age", ["", "30", "d", "-1d", "30y"])
def test_what_is_no_age_is_refused(age: str) -> None:
    with pytest.raises(UsageError, match="is not an age"):
        upkeep.seconds(age)


def test_a_pin_keeps_what_it_reaches_until_it_is_taken_back(small) -> None:
    graph = small.graph()
    small.run(graph)
    upkeep.pin(small.store, "paper", graph)
    assert upkeep.collect(small.store, 0.0, dry_run=False) == ([], [])
    assert upkeep.unpin(small.store, "paper")
    assert not upkeep.unpin(small.store, "paper")
    objects, _ = upkeep.collect(small.store, 0.0, dry_run=True)
    assert sorted(objects) == sorted(graph.nodes)
    assert all(small.store.find(key) for key in graph.nodes)  # a dry run removes nothing


def test_a_run_keeps_its_results_for_as_long_as_it_is_young(small) -> None:
    graph = small.graph()
    small.run(graph)
    upkeep.remember(small.store, "run", graph)
    assert upkeep.reachable(small.store, 60.0) == set(graph.nodes)
    (root,) = (small.store.root / "roots").glob("run-*.json")
    root.write_text(json.dumps(json.loads(root.read_text()) | {"started": time.time() - 61}))
    assert upkeep.reachable(small.store, 60.0) == set()


def test_what_is_forgotten_goes_with_the_checkpoints_of_its_attempts(small) -> None:
    graph = small.graph(goal=["first"])
    (key,) = graph.nodes
    small.run(graph)
    (small.store.stage(key) / "checkpoints").mkdir()
    assert upkeep.forget(small.store, key)
    assert small.store.find(key) is None
    assert small.store.attempts(key) == []
    assert not upkeep.forget(small.store, key)
    assert not list((small.store.root / "quarantine").iterdir())


def test_a_file_that_is_missing_or_has_other_bytes_is_damage(small) -> None:
    graph = small.graph(goal=["first", "apart"])
    small.run(graph)
    first, apart = (small.store.payload(key) / "said.txt" for key in graph.nodes)
    assert upkeep.damaged(small.store) == {}
    for path in (first, apart, first.parent):
        path.chmod(0o755)
    first.unlink()
    apart.write_text(apart.read_text().swapcase())
    keys = [path.parent.parent.name for path in (first, apart)]
    assert upkeep.damaged(small.store) == {
        keys[0]: "its manifest or a file is missing or cut short",
        keys[1]: "said.txt has other bytes than were published",
    }
    assert list(upkeep.damaged(small.store, quick=True)) == keys[:1]
