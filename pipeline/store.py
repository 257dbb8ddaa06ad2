"""The store: immutable results by key.

    objects/ab/<key>/manifest.json, log.txt, payload/…      published by one rename, read-only afterwards
    staging/<key>.<attempt>/                                 being written; its `checkpoints/` may outlive it
    leases/<key>                                             who is working on it
    failures/<key>/failure.json, log.txt                     the last failure; never taken for a result

A key is published if its folder exists in `objects`: one rename puts the whole folder there, so there is never a half.

All files and folders of a store get the permissions of its root, whatever the umask of the process that writes them. So
who may read and write a store is decided in one place.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import SoftFileLease, Timeout

from pipeline.errors import UsageError

SETTINGS = {"schema": 1, "lease_seconds": 30.0}
PUBLISHED = ("payload", "manifest.json", "log.txt")


@dataclass(frozen=True)
class Manifest:
    """How an object was made. Of the environment it holds versions and the host's name, and nothing else."""

    key: str
    stage: str
    """The stage's name in the configuration that first ran it."""
    preimage: dict[str, Any]
    code: dict[str, dict[str, str]]
    inputs: dict[str, str]
    """{name: key} of the stages upstream."""
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
    """Dollars paid for the answers in it, also for those that an earlier run bought: the stage's metric `dollars`."""
    extra: dict[str, Any] = field(default_factory=dict)


class Store:
    """A store folder, made where it is missing. Raises UsageError where it cannot be used."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._mode = stat.S_IMODE(self.root.stat().st_mode) | stat.S_IRWXU
            for name in ("objects", "staging", "leases", "failures"):
                self.folder(name)
            settings = self.root / "settings.json"
            if not settings.exists():
                self.write(settings, json.dumps(SETTINGS))
            self.settings = json.loads(settings.read_text())
        except OSError as error:
            raise self.unwritable(error) from error
        if self.settings.get("schema") != SETTINGS["schema"]:
            raise UsageError(f"store: {self.root} has schema {self.settings.get('schema')}; set store=/a/new/folder")

    def unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"store: {self.root} cannot be written ({error.strerror}); set store=/another/folder")

    def folder(self, *names: str) -> Path:
        """A folder below the root, made where it is missing, with the root's permissions."""
        path = self.root
        for name in names:
            path = path / name
            if not path.is_dir():
                path.mkdir(exist_ok=True)
                path.chmod(self._mode)
        return path

    def write(self, path: Path, text: str) -> None:
        """Writes a small file whole or not at all, with the root's permissions."""
        _write_whole(path, text)
        path.chmod(self._mode & 0o666)

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
        """The lease of a key, not yet acquired.

        Whoever waits for it must keep this one object: it remembers since when the holder was silent, and a new object
        for each look would start to count again, so that a dead holder would never expire.
        """
        return SoftFileLease(
            self.root / "leases" / key,
            lease_duration=self.settings["lease_seconds"],
            thread_local=False,
            timeout=0,
            mode=self._mode & 0o666,
        )

    def leased(self, key: str) -> bool:
        """Whether a living process is working on a key. Never waits. It may be wrong a moment later.

        A holder on this host is looked up among its processes; one on another host lives as long as it refreshes its
        lease. The lease of a dead holder is set free.
        """
        lease = self.lease(key)
        try:
            refreshed = Path(lease.lock_file).stat().st_mtime
        except OSError:
            return False
        with suppress(OSError):  # a store that cannot be written
            if granted(lease):
                return False
        return time.time() - refreshed < self.patience

    @property
    def patience(self) -> float:
        """Seconds without a refresh after which the holder of a lease counts as dead."""
        return 1.5 * self.settings["lease_seconds"]

    def stage(self, key: str) -> Path:
        """A new staging folder for one attempt at a key, with an empty `payload` inside.

        Only the holder of the key's lease may call this. If an earlier attempt died and left `checkpoints/`, the newest
        of these is copied, so that this attempt can go on from there.
        """
        places = [attempt / "checkpoints" for attempt in self.attempts(key)]
        earlier = [place for place in places if place.is_dir() and any(place.iterdir())]
        name = f"{key}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        folder = self.folder("staging", name)
        self.folder("staging", name, "payload")
        if earlier:
            newest = max(earlier, key=lambda path: path.stat().st_mtime)
            shutil.copytree(newest, folder / "checkpoints", copy_function=shutil.copyfile)
        return folder

    def publish(self, staging: Path, key: str) -> bool:
        """Moves a finished staging folder into place; False where another attempt was first (ours is then dropped)."""
        target = self.object(key)
        self.folder("objects", key[:2])
        _leave_only(staging, PUBLISHED)
        if target.exists() and self.find(key) is None:  # somebody damaged it: moved away, where it can be inspected
            self.quarantine(key)
        try:
            os.rename(staging, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self.discard(staging)
            return False
        _fsync(target.parent)
        self._read_only(target)
        for attempt in self.attempts(key):
            if not (attempt / "payload").exists():  # only its checkpoints were left, and nobody needs them now
                self.discard(attempt)
        return True

    def attempts(self, key: str) -> list[Path]:
        """Staging folders of a key."""
        return list((self.root / "staging").glob(f"{key}.*"))

    def quarantine(self, key: str) -> Path:
        """Moves an object out of use, to be inspected; returns where it lies. Raises UsageError for another user's."""
        place = self.folder("quarantine") / f"{key}.{uuid.uuid4().hex[:8]}"
        try:
            self.object(key).chmod(self._mode)
            os.rename(self.object(key), place)
        except PermissionError as error:
            owner = self.object(key).stat().st_uid
            raise UsageError(
                f"store: {self.object(key)} belongs to another user (uid {owner}); only they can move it"
            ) from error
        return place

    def fail(self, staging: Path, key: str, failure: dict[str, Any], *, keep_checkpoints: bool = False) -> Path:
        """Keeps the log and the reason of a failed attempt, drops the rest; returns the log's path."""
        folder = self.folder("failures", key)
        log = folder / "log.txt"
        if (staging / "log.txt").exists():
            os.replace(staging / "log.txt", log)
        self.abandon(staging) if keep_checkpoints else self.discard(staging)
        self.write(folder / "failure.json", json.dumps(failure, indent=1))
        return log

    def abandon(self, staging: Path) -> None:
        """Removes all of an attempt but its checkpoints, from which the next attempt can go on."""
        checkpoints = staging / "checkpoints"
        if not checkpoints.is_dir() or not any(checkpoints.iterdir()):
            self.discard(staging)
            return
        with suppress(OSError):  # what cannot be removed now, `gc` removes later
            _leave_only(staging, [checkpoints.name])

    def discard(self, staging: Path) -> None:
        """Removes a staging folder of ours."""
        shutil.rmtree(staging, ignore_errors=True)

    def _read_only(self, folder: Path) -> None:
        # after the rename: an ordinary user cannot rename a read-only folder
        for path in [*folder.rglob("*"), folder]:
            if not path.is_symlink():
                path.chmod(self._mode & (0o7555 if path.is_dir() else 0o444))


def granted(lease: SoftFileLease) -> bool:
    """Whether a lease could be had now. It stays free. Of a holder on another host it is known late that it is dead."""
    try:
        lease.acquire(timeout=0)
    except Timeout:
        return False
    lease.release()
    return True


def _leave_only(folder: Path, names: Collection[str]) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


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
