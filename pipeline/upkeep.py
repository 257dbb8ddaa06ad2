"""Looking after a store: whether its objects are whole, and which may be removed.

An object may be removed when nobody works on it and no root reaches it. A root is a file `roots/*.json` in the store: a
pin, or a run that is younger than a given age. A run writes its root when it starts, so that users who share a store do
not remove each other's results.
"""

import hashlib
import json
import re
import shutil
import socket
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from filelock import SoftFileLease, Timeout

from pipeline.errors import UsageError
from pipeline.graph import Graph
from pipeline.store import Store, granted

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(age: str) -> float:
    """Seconds of an age like `30d` or `12h`. Raises UsageError for anything else."""
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", age)):
        raise UsageError(f"--keep-runs: {age} is not an age; write a number and s, m, h, d or w, such as 30d")
    return float(found[1]) * _UNITS[found[2]]


def remember(store: Store, name: str, graph: Graph) -> None:
    """Writes a run's root. A store that cannot be written needs none: nothing can be removed from it."""
    with suppress(OSError):
        _root(store, f"{name}-{uuid.uuid4().hex[:8]}", graph, pinned=False)


def pin(store: Store, name: str, graph: Graph) -> None:
    """Keeps all that a graph reaches from `gc`, until `unpin`."""
    _root(store, _pin(name), graph, pinned=True)


def unpin(store: Store, name: str) -> bool:
    """Takes a pin back; False where there is none of that name."""
    path = store.root / "roots" / f"{_pin(name)}.json"
    if not path.exists():
        return False
    path.unlink()
    return True


def _pin(name: str) -> str:
    if "/" in name:
        raise UsageError(f"name: {name} cannot name a pin, which is a file of the store; leave out the /")
    return f"pin-{name}"


def _root(store: Store, name: str, graph: Graph, *, pinned: bool) -> None:
    shards = {key: node.parts for key, node in graph.nodes.items() if node.parts}
    keys = sorted(key for key, node in graph.nodes.items() if not node.shard)
    root = {"started": time.time(), "pinned": pinned, "keys": keys, "shards": shards}
    store.write(store.folder("roots") / f"{name}.json", json.dumps(root))


def damaged(store: Store, *, quick: bool = False) -> dict[str, str]:
    """{key: what is wrong} of published objects: a file missing, of another size or, unless `quick`, other bytes."""
    found = {}
    for folder in sorted((store.root / "objects").glob("*/*")):
        key = folder.name
        manifest = store.find(key)
        if manifest is None:
            found[key] = "its manifest or a file is missing or cut short"
            continue
        for name, entry in manifest.files.items() if not quick else ():
            with (store.payload(key) / name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != entry["sha256"]:
                    found[key] = f"{name} has other bytes than were published"
                    break
    return found


def forget(store: Store, key: str) -> bool:
    """Removes a published object; False where it is not there or somebody works on it."""
    lease = store.lease(key)
    try:
        lease.acquire(timeout=0)
    except Timeout:
        return False
    try:
        for attempt in store.attempts(key):  # what is made anew starts from nothing, not from a checkpoint
            store.discard(attempt)
        if not store.object(key).exists():
            return False
        _remove(store.quarantine(key))
        return True
    finally:
        lease.release()


def reachable(store: Store, keep_seconds: float) -> set[str]:
    """Keys that pins and runs younger than `keep_seconds` reach; of shards, those that are not merged yet."""
    keys: set[str] = set()
    for path in (store.root / "roots").glob("*.json"):
        with suppress(OSError, ValueError):
            root = json.loads(path.read_text())
            if root.get("pinned") or time.time() - root["started"] < keep_seconds:
                keys.update(root["keys"])
                for whole, parts in root.get("shards", {}).items():
                    if store.find(whole) is None:
                        keys.update(parts)
    return keys


def collect(store: Store, keep_seconds: float, *, dry_run: bool) -> tuple[list[str], list[Path]]:
    """Removes objects that no root reaches, and staging folders; nothing that is worked on. Returns what it removed."""
    kept = reachable(store, keep_seconds)
    objects = [path.name for path in sorted((store.root / "objects").glob("*/*")) if path.name not in kept]
    attempts = {path: path.name.partition(".")[0] for path in sorted((store.root / "staging").iterdir())}
    busy = _busy(store, {*objects, *attempts.values()})
    objects = [key for key in objects if key not in busy]
    staging = [path for path, key in attempts.items() if key not in busy]
    if not dry_run:
        objects = [key for key in objects if forget(store, key)]
        for folder in staging:
            _remove(folder)
    return objects, staging


def _busy(store: Store, keys: Collection[str]) -> set[str]:
    """Those of the keys that a living process has leased.

    Whether a holder on another host lives is known only after the lease time. All such are waited for at once.
    """
    leased = {path.name for path in (store.root / "leases").iterdir()}
    held = {key: lease for key in keys if key in leased and not granted(lease := store.lease(key))}
    here = {key for key, lease in held.items() if _here(lease)}
    unclear = {key: lease for key, lease in held.items() if key not in here}
    deadline = time.monotonic() + store.patience
    while unclear and time.monotonic() < deadline:
        time.sleep(0.2)
        unclear = {key: lease for key, lease in unclear.items() if not granted(lease)}
    return here | unclear.keys()


def _here(lease: SoftFileLease) -> bool:
    """Whether the holder is a process of this host. It lives then: a dead one's lease is free at once."""
    return lease.owner is not None and lease.owner.hostname.partition("?")[0] == socket.gethostname()


def _remove(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:  # published folders are read-only
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
