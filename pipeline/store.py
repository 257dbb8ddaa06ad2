"""The store: immutable results by key.

    objects/ab/<key>/manifest.json, log.txt, payload/…      published by one rename, read-only afterwards
    staging/<key>.<attempt>/                                 being written; never read by anybody else
    leases/<key>                                             who is working on it
    failures/<key>/failure.json, log.txt                     the last failure; never taken for a result

A key is published if and only if its folder exists in `objects`: the rename makes it whole or absent.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import SoftFileLease

from pipeline.errors import UsageError

SETTINGS = {"schema": 1, "lease_seconds": 30.0}


@dataclass(frozen=True)
class Manifest:
    """How an object came to be. Holds nothing of the environment but versions and the host's name."""

    key: str
    stage: str
    """Instance name in the configuration that first ran it."""
    preimage: dict[str, Any]
    code: dict[str, dict[str, str]]
    inputs: dict[str, str]
    """Upstream key by the instance name it had."""
    files: dict[str, dict[str, Any]]
    """{path below payload: {size in bytes, sha256}}."""
    metrics: dict[str, float]
    started: str
    """UTC, ISO 8601."""
    seconds: float
    host: str
    versions: dict[str, str]
    commit: str
    cost: float = 0.0
    """Dollars spent on paid APIs."""
    extra: dict[str, Any] = field(default_factory=dict)


class Store:
    """A store folder, made where it is missing. Raises UsageError where it cannot be used."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        try:
            for name in ("objects", "staging", "leases", "failures"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            settings = self.root / "settings.json"
            if not settings.exists():
                _write_whole(settings, json.dumps(SETTINGS))
            self.settings = json.loads(settings.read_text())
        except OSError as error:
            raise UsageError(
                f"store: {self.root} cannot be written ({error.strerror}); set store=/another/folder"
            ) from error
        if self.settings.get("schema") != SETTINGS["schema"]:
            raise UsageError(f"store: {self.root} has schema {self.settings.get('schema')}; set store=/a/new/folder")

    def object(self, key: str) -> Path:
        return self.root / "objects" / key[:2] / key

    def payload(self, key: str) -> Path:
        return self.object(key) / "payload"

    def find(self, key: str) -> Manifest | None:
        """The manifest of a published object whose files are all there in full size, else None."""
        try:
            manifest = Manifest(**json.loads((self.object(key) / "manifest.json").read_text()))
            whole = all((self.payload(key) / p).stat().st_size == f["size"] for p, f in manifest.files.items())
        except (OSError, ValueError, TypeError):
            return None
        return manifest if whole else None

    def manifests(self) -> Iterator[Manifest]:
        """Every published manifest, in no order."""
        for path in (self.root / "objects").glob("*/*/manifest.json"):
            if manifest := self.find(path.parent.name):
                yield manifest

    def lease(self, key: str) -> SoftFileLease:
        """The lease of a key, not yet acquired. Take one object a wait: a fresh one never sees a dead holder expire."""
        return SoftFileLease(
            self.root / "leases" / key, lease_duration=self.settings["lease_seconds"], thread_local=False, timeout=0
        )

    def leased(self, key: str) -> bool:
        """Whether somebody says to be working on a key (advisory)."""
        return (self.root / "leases" / key).exists()

    def stage(self, key: str) -> Path:
        """A new staging folder for one attempt at a key, with an empty `payload` inside."""
        folder = self.root / "staging" / f"{key}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        (folder / "payload").mkdir(parents=True)
        return folder

    def publish(self, staging: Path, key: str) -> bool:
        """Moves a finished staging folder into place; False where another attempt was first (ours is then dropped)."""
        target = self.object(key)
        target.parent.mkdir(exist_ok=True)
        if target.exists() and self.find(key) is None:  # truncated by somebody: out of the way, for inspection
            self.quarantine(key)
        try:
            os.rename(staging, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self.discard(staging)
            return False
        _fsync(target.parent)
        _read_only(target)
        return True

    def quarantine(self, key: str) -> Path:
        """Takes an object out of use, for inspection; returns where it lies now."""
        place = self.root / "quarantine" / f"{key}.{uuid.uuid4().hex[:8]}"
        place.parent.mkdir(exist_ok=True)
        self.object(key).chmod(0o755)
        os.rename(self.object(key), place)
        return place

    def fail(self, staging: Path, key: str, failure: dict[str, Any]) -> Path:
        """Keeps the log and the reason of a failed attempt, drops the rest; returns the log's path."""
        folder = self.root / "failures" / key
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "log.txt"
        if (staging / "log.txt").exists():
            os.replace(staging / "log.txt", log)
        self.discard(staging)
        _write_whole(folder / "failure.json", json.dumps(failure, indent=1))
        return log

    def discard(self, staging: Path) -> None:
        """Removes a staging folder of ours."""
        shutil.rmtree(staging, ignore_errors=True)


def write_manifest(staging: Path, manifest: Manifest) -> None:
    """The last write before publication: hashes the payload and stores the manifest beside it, flushed to disk."""
    files = {}
    for path in sorted(p for p in (staging / "payload").rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            sha = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        files[str(path.relative_to(staging / "payload"))] = {"size": path.stat().st_size, "sha256": sha}
    _write_whole(staging / "manifest.json", json.dumps(asdict(manifest) | {"files": files}, indent=1, sort_keys=True))


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_only(folder: Path) -> None:
    # after the rename: an ordinary user cannot rename a read-only folder
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
