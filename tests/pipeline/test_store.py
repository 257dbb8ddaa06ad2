"""The store: an object is there whole, or not there."""

import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import SoftFileLease

from pipeline.errors import UsageError
from pipeline.store import Manifest, Store, write_manifest
from pipeline.upkeep import collect

KEY = "ab" + "0" * 62
MANIFEST = Manifest(
    key=KEY,
    stage="say",
    preimage={"stage": "toy.Say"},
    code={},
    inputs={},
    files={},
    metrics={"letters": 5.0},
    started="2026-01-01T00:00:00+00:00",
    seconds=1.0,
    host="here",
    versions={},
    commit="",
)


def finished(store: Store, text: str = "hello") -> Path:
    staging = store.stage(KEY)
    (staging / "payload/said.txt").write_text(text)
    write_manifest(staging, MANIFEST)
    return staging


def test_published_means_found_whole_and_read_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find(KEY) is None
    assert store.publish(finished(store), KEY)
    manifest = store.find(KEY)
    assert manifest is not None
    # sha256 of "hello"
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert manifest.files == {"said.txt": {"size": 5, "sha256": digest}}
    assert not stat.S_IMODE((store.payload(KEY) / "said.txt").stat().st_mode) & 0o222
    assert not list((tmp_path / "staging").iterdir())


def test_the_first_of_two_attempts_wins_and_the_second_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = finished(store, "first"), finished(store, "second")
    assert store.publish(first, KEY)
    assert not store.publish(second, KEY)
    assert (store.payload(KEY) / "said.txt").read_text() == "first"
    assert not second.exists()


def test_an_attempt_without_a_manifest_is_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.stage(KEY) / "payload/half.txt").write_text("half")
    assert store.find(KEY) is None


@pytest.mark.parametrize("damage", ["missing", "shorter", "manifest"])
def test_a_damaged_object_is_not_found_and_makes_way(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.publish(finished(store), KEY)
    for path in (store.object(KEY), store.payload(KEY)):
        path.chmod(0o755)
    said = store.payload(KEY) / "said.txt"
    said.chmod(0o644)
    if damage == "missing":
        said.unlink()
    elif damage == "shorter":
        said.write_text("hell")
    else:
        (store.object(KEY) / "manifest.json").chmod(0o644)
        (store.object(KEY) / "manifest.json").write_text("{")
    assert store.find(KEY) is None
    assert store.publish(finished(store, "again"), KEY)
    assert store.find(KEY) is not None
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_a_lease_is_held_by_one_and_passes_on_when_released(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ours = store.lease(KEY)
    ours.acquire()
    assert store.leased(KEY)
    ours.release()
    assert not store.leased(KEY)


def orphaned(store: Store, host: str, pid: int) -> SoftFileLease:
    """The lease of a process that was killed: nobody refreshes it. It is released where it goes out of scope."""
    lease = store.lease(KEY)
    lease.acquire()
    lease._stop_heartbeat()
    marker = Path(lease.lock_file)
    named = marker.read_text().replace(f"pid={os.getpid()}\n", f"pid={pid}\n")
    marker.write_text(named.replace(f"host={socket.gethostname()}", f"host={host}"))
    return lease


def dead() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_the_lease_of_a_process_that_was_killed_is_nobodys(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lease = orphaned(store, socket.gethostname(), os.getpid())
    assert store.leased(KEY)  # it lives
    marker = Path(lease.lock_file)
    marker.write_text(marker.read_text().replace(f"pid={os.getpid()}\n", f"pid={dead()}\n"))
    assert not store.leased(KEY)


def test_a_holder_on_another_host_lives_while_it_refreshes_its_lease(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lease = orphaned(store, "elsewhere", 1)
    assert store.leased(KEY)
    past = time.time() - 1.5 * store.settings["lease_seconds"] - 1
    os.utime(lease.lock_file, (past, past))
    assert not store.leased(KEY)


@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"], ids=["here", "elsewhere"])
def test_gc_takes_an_object_beside_the_lease_of_the_dead(tmp_path: Path, host: str) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"schema": 1, "lease_seconds": 0.5}))
    store = Store(tmp_path)
    store.publish(finished(store), KEY)
    lease = orphaned(store, host, dead())
    assert Path(lease.lock_file).exists()
    assert collect(store, 0.0, dry_run=False) == ([KEY], [])
    assert not store.object(KEY).exists()


def test_a_failure_is_kept_apart_from_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    staging = store.stage(KEY)
    (staging / "log.txt").write_text("the voice broke")
    log = store.fail(staging, KEY, {"kind": "error", "message": "broke"})
    assert log.read_text() == "the voice broke"
    assert json.loads((log.parent / "failure.json").read_text())["message"] == "broke"
    assert store.find(KEY) is None
    assert not staging.exists()


def test_a_store_of_another_schema_is_refused(tmp_path: Path) -> None:
    Store(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps({"schema": 99, "lease_seconds": 1}))
    with pytest.raises(UsageError, match="schema 99"):
        Store(tmp_path)


def test_a_file_where_the_store_should_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(UsageError, match=r"store: .* cannot be written"):
        Store(tmp_path / "store")


def test_all_published_manifests_are_listed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.publish(finished(store), KEY)
    assert [manifest.key for manifest in store.manifests()] == [KEY]
