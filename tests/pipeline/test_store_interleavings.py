"""The store under any interleaving of publish, crash, takeover and gc: whole objects or none, and one execution a key.

Processes are simulated: each holds its own lease object, and a crash stops its heartbeat and leaves everything else as
it lies, as kill -9 does. Time is not waited for: a dead holder's lease is made to name a process that is gone.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import SoftFileLease, Timeout
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pipeline import upkeep
from pipeline.store import Manifest, Store, write_manifest

KEYS = ["ab" + "0" * 62, "cd" + "1" * 62]
DEAD = subprocess.Popen([sys.executable, "-c", ""])
DEAD.wait()


class Attempt:
    def __init__(self, key: str, lease: SoftFileLease, staging: Path, number: int) -> None:
        self.key, self.lease, self.staging, self.number = key, lease, staging, number
        self.finished = False


def crash(attempt: Attempt) -> None:
    """As if the holder's process were gone: no heartbeat, and its record names a process that does not exist."""
    attempt.lease._stop_heartbeat()
    marker = Path(attempt.lease.lock_file)
    text = marker.read_text()
    assert str(os.getpid()) in text
    marker.write_text(text.replace(str(os.getpid()), str(DEAD.pid)))


class Interleavings(RuleBasedStateMachine):
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.store = Store(self.root)
        self.number = 0
        self.held: dict[str, Attempt] = {}
        self.published: dict[str, int] = {}
        self.kept: set[str] = set()
        self.crashed: list[Attempt] = []

    @rule(target=attempts, key=st.sampled_from(KEYS))
    def begin(self, key: str) -> Attempt | None:
        """Somebody looks for a result and, where there is none, takes the lease: granted to one alone."""
        if (manifest := self.store.find(key)) is not None:
            assert manifest.metrics["number"] == self.published[key]
            return None
        lease = self.store.lease(key)
        try:
            lease.acquire(timeout=0)
        except Timeout:
            assert key in self.held  # refused only while somebody lives who has it
            return None
        assert key not in self.held
        assert key not in self.published
        self.number += 1
        attempt = Attempt(key, lease, self.store.stage(key), self.number)
        (attempt.staging / "payload/half.txt").write_text(str(self.number))
        self.held[key] = attempt
        return attempt

    @rule(attempt=attempts)
    def write(self, attempt: Attempt | None) -> None:
        """The stage ends: its payload is whole, its manifest written; not published yet."""
        if attempt and self.held.get(attempt.key) is attempt and not attempt.finished:
            write_manifest(attempt.staging, manifest(attempt))
            attempt.finished = True

    @rule(attempt=consumes(attempts))
    def publish(self, attempt: Attempt | None) -> None:
        if attempt and self.held.get(attempt.key) is attempt and attempt.finished:
            assert self.store.publish(attempt.staging, attempt.key)
            self.published[attempt.key] = attempt.number
            attempt.lease.release()
            del self.held[attempt.key]

    @rule(attempt=consumes(attempts), published=st.booleans())
    def die(self, attempt: Attempt | None, published: bool) -> None:
        """kill -9 in the middle, or just behind the rename."""
        if attempt and self.held.get(attempt.key) is attempt:
            if attempt.finished and published:
                assert self.store.publish(attempt.staging, attempt.key)
                self.published[attempt.key] = attempt.number
            crash(attempt)
            self.crashed.append(attempt)
            del self.held[attempt.key]

    @rule(key=st.sampled_from(KEYS))
    def keep(self, key: str) -> None:
        folder = self.store.folder("roots")
        self.store.write(folder / f"{key}.json", json.dumps({"started": 0, "pinned": True, "keys": [key]}))
        self.kept.add(key)

    @rule()
    def collect(self) -> None:
        """gc takes what no root reaches and nobody works on, and the staging of the dead; of the living nothing."""
        removed, _ = upkeep.collect(self.store, 1.0, dry_run=False)
        assert not set(removed) & self.kept
        for key in removed:
            del self.published[key]
        left = {path.name.partition(".")[0] for path in (self.root / "staging").iterdir()}
        assert left == set(self.held)

    @invariant()
    def whole_or_absent(self) -> None:
        for key in KEYS:
            found = self.store.find(key)
            assert (found is not None) == (key in self.published)
            if found:
                payload = self.store.payload(key)
                assert (payload / "half.txt").read_text() == str(self.published[key])
        assert upkeep.damaged(self.store) == {}
        for attempt in self.held.values():
            assert attempt.staging.exists()

    def teardown(self) -> None:
        for attempt in self.held.values():
            attempt.lease.release(force=True)
        subprocess.run(["chmod", "-R", "u+w", str(self.root)], check=False)
        shutil.rmtree(self.root)


def manifest(attempt: Attempt) -> Manifest:
    return Manifest(
        key=attempt.key,
        stage="say",
        preimage={"stage": "toy.Say"},
        code={},
        inputs={},
        files={},
        metrics={"number": float(attempt.number)},
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        host="here",
        versions={},
        commit="",
    )


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
