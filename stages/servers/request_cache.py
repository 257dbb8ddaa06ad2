"""The record of paid requests and their answers. An answer that is in it is never bought again.

A folder of append-only files, one a writing process (so hosts and processes never share one), one JSON object a line:

    {"kind": "intent", "key": …, "request": …}     before a request leaves; not yet synced to the disk
    {"kind": "answer", "key": …, "response": …}    the raw response, synced before anything else happens
    {"kind": "error", "key": …, "problem": …}      the server refused: nothing was bought, nothing is cached
    {"kind": "lost", "key": …, "problem": …}       sent, no readable answer came back: it may have been bought
    {"kind": "batch", "key": …, "requests": […]}   a batch of requests, before it is handed over; `batch_done` closes it

A line that a kill or a full disk tore is ignored. An intent that nothing closes was in flight when its process died.
"""

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class RequestCache:
    """Answers by request key, shared by threads, processes and hosts that see the same folder."""

    def __init__(self, folder: Path, redact: Callable[[str], str] = lambda text: text) -> None:
        """`redact` takes secrets out of every line before it is written."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.redact = redact
        self._lock = threading.RLock()
        self._free = threading.Condition(self._lock)
        self._asking: set[str] = set()
        self._places: dict[str, tuple[Path, int, int]] = {}  # key → file, offset, length
        self._batched: set[str] = set()
        self._read_to: dict[Path, int] = {}
        self._open: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()
        self.batches: dict[str, list[str]] = {}
        """Request keys of every batch that is not done."""
        self._file: int | None = None
        # Byte locks on this file are claims; the system drops them when their process dies, however it dies.
        self._claims = os.open(self.folder / "claims.lock", os.O_RDWR | os.O_CREAT, 0o644)
        self.refresh()

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
            if self._claims >= 0:
                os.close(self._claims)
                self._claims = -1

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The recorded response of a request, or None."""
        with self._lock:
            if (place := self._places.get(key)) is None:
                return None
        path, offset, length = place
        with path.open("rb") as stream:
            stream.seek(offset)
            return json.loads(stream.read(length))["response"]

    def batched(self, key: str) -> bool:
        """Whether the recorded answer came through a batch, at that price."""
        return key in self._batched

    def unanswered(self, key: str) -> int:
        """How often a request was sent without a recorded outcome: each may have been bought."""
        with self._lock:
            return max(0, self._open[key]) + self._lost[key]

    def repeated(self, key: str) -> int:
        """How often an answer was recorded though there was one: bought twice for certain."""
        with self._lock:
            return self._repeated[key]

    def refresh(self) -> None:
        """Takes in what other processes have recorded since."""
        with self._lock:
            for entry in sorted(os.scandir(self.folder), key=lambda entry: entry.name):
                if entry.name.endswith(".jsonl"):
                    path = Path(entry.path)
                    if entry.stat().st_size > self._read_to.get(path, 0):
                        self._take_in(path)

    def _take_in(self, path: Path) -> None:
        offset = self._read_to.get(path, 0)
        with path.open("rb") as stream:
            stream.seek(offset)
            for line in stream:
                if not line.endswith(b"\n"):  # torn, or still being written: look again next time
                    break
                self._note(line, path, offset)
                offset += len(line)
        self._read_to[path] = offset

    def _note(self, line: bytes, path: Path, offset: int) -> None:
        try:
            found = json.loads(line)
            kind, key = found["kind"], found["key"]
        except (ValueError, TypeError, KeyError):  # UnicodeDecodeError is a ValueError
            return
        if kind == "batch":
            self.batches[key] = found["requests"]
        elif kind == "batch_done":
            self.batches.pop(key, None)
        elif kind == "intent":
            self._open[key] += 1
        elif kind in ("answer", "lost", "error"):
            self._open[key] -= not found.get("batch")  # a batch's requests have no intents of their own
            if kind == "lost":
                self._lost[key] += 1
            elif kind == "answer" and key in self._places:
                self._repeated[key] += 1
            elif kind == "answer":
                self._places[key] = (path, offset, len(line))
                if found.get("batch"):
                    self._batched.add(key)

    @contextmanager
    def claimed(self, key: str) -> Iterator[None]:
        """While this holds, no other thread or process asks the same question. Look at `get` inside it, for another may
        have got the answer meanwhile."""
        with self._free:
            while key in self._asking:
                self._free.wait()
            self._asking.add(key)
        place = int(key[:15], 16)
        try:
            while True:
                try:
                    fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                    break
                except BlockingIOError:
                    time.sleep(0.05)
                except PermissionError:  # what some systems say for a lock that is taken
                    time.sleep(0.05)
            try:
                self.refresh()
                yield
            finally:
                fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, place)
        finally:
            with self._free:
                self._asking.discard(key)
                self._free.notify_all()

    def intend(self, key: str, request: Mapping[str, Any]) -> None:
        """Written before every sending, also before that of a retry."""
        self._append({"kind": "intent", "key": key, "time": _now(), "request": request}, sync=False)

    def record(self, key: str, response: Mapping[str, Any], batch: str = "") -> None:
        """Keeps an answer for good: it is on the disk when this returns."""
        origin = {"batch": batch} if batch else {}
        self._append({"kind": "answer", "key": key, "time": _now(), **origin, "response": response}, sync=True)

    def open_batch(self, batch: str, keys: list[str]) -> None:
        """Written before a batch is handed over; it is on the disk when this returns."""
        self._append({"kind": "batch", "key": batch, "time": _now(), "requests": keys}, sync=True)

    def close_batch(self, batch: str) -> None:
        """The batch is over, and its answers are recorded."""
        self._append({"kind": "batch_done", "key": batch, "time": _now()}, sync=True)

    def refused(self, key: str, problem: str) -> None:
        """The server refused a sending, so nothing was bought."""
        self._append({"kind": "error", "key": key, "time": _now(), "problem": problem}, sync=False)

    def lose(self, key: str, problem: str) -> None:
        """A sending brought no readable answer, but may have been bought."""
        self._append({"kind": "lost", "key": key, "time": _now(), "problem": problem}, sync=False)

    def _append(self, line: Mapping[str, Any], *, sync: bool) -> None:
        data = self.redact(json.dumps(line, ensure_ascii=True, separators=(",", ":"))).encode() + b"\n"
        with self._lock:
            if self._file is None:
                self._path = self.folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
                _sync_folder(self.folder)
            file, path = self._file, self._path
            try:
                written = 0
                while written < len(data):
                    written += os.write(file, data[written:])
            except OSError:  # a full disk: what follows must not be glued to a torn line
                os.close(file)
                self._file = None
                raise
        if sync:
            os.fsync(file)  # outside the lock: other threads write and sync meanwhile
        with self._lock:
            if os.stat(path).st_size > self._read_to.get(path, 0):
                self._take_in(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
