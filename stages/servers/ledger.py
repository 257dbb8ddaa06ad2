"""What a whole run may spend: one account for the clients of many stages, in several processes and on several hosts.

A folder of append-only files, one a writing process, one JSON object a line:

    {"name": …, "held": dollars}     before a sending leaves: its worst case
    {"name": …, "spent": dollars}    after it: what it cost

A sending that a killed process left open keeps its worst case, for it may have been bought. Lines are not synced to
the disk, so the last ones are lost in a power cut, but not when a process is killed. An answer that is in the request
cache is not bought again, so it has no second entry here.
"""

import fcntl
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Ledger:
    """The account as one process sees it. The `Budget` that owns it calls its methods, under its own lock."""

    def __init__(self, requests: Path, account: str, ceiling: float | None) -> None:
        """`requests`: the folder of recorded answers. `account`: a name; all who give it share the ceiling."""
        self.ceiling, self.account = ceiling, account
        self.folder = Path(requests) / "ledgers" / re.sub(r"[^\w.-]", "_", account)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._writers: dict[str, set[Path]] = {}
        self._read_to: dict[Path, int] = {}
        self._gate = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        self._path = self.folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        # Held as long as this process lives; the system drops it, however the process ends.
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def close(self) -> None:
        for name in ("_file", "_gate"):
            if (descriptor := getattr(self, name)) >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    @property
    def spent(self) -> float:
        """Dollars spent, with the worst case of every open sending, as of the last call of another method."""
        return sum(self._spent.values()) + sum(self._held.values())

    def hold(self, name: str, dollars: float) -> bool:
        """Sets a sending's worst case aside where it fits below the ceiling; `dollars` replace what it held before."""
        with self._gated():
            if not self._room(dollars - self._held.get(name, 0.0)):
                return False
            self._append(name, "held", dollars)
            return True

    def fits(self, dollars: float) -> bool:
        with self._gated():
            return self._room(dollars)

    def commit(self, name: str, dollars: float) -> None:
        """Sets aside, whether it fits or not. A name counts once, also where another process has set it aside."""
        with self._gated():
            if name not in self._spent:
                self._append(name, "held", dollars)

    def settle(self, name: str, dollars: float) -> None:
        """Writes down what a sending cost; where it is written down already, that stays."""
        with self._gated():
            if name not in self._spent:
                self._append(name, "spent", dollars)

    def busy(self) -> bool:
        """Whether a living process has sendings open, so that waiting may make room."""
        with self._gated():
            return any(_alive(path) for path in set().union(*(self._writers[name] for name in self._held)))

    def stopped(self, dollars: float) -> str:
        """The line for a user whose run ends here."""
        return (
            f"${self.spent:.4f} of ${self.ceiling:.4f} is spent by all judges of runs named {self.account!r} and the "
            f"next request may cost ${dollars:.4f}; every answer so far is recorded: raise this limit and run again, "
            "and it goes on from here"
        )

    def _room(self, dollars: float) -> bool:
        return self.ceiling is None or self.spent + dollars <= self.ceiling + 1e-12

    @contextmanager
    def _gated(self) -> Iterator[None]:
        """While this holds, no other process writes to the account, and all that they wrote before has been read."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            for path in sorted(self.folder.glob("*.jsonl")):
                if path.stat().st_size > self._read_to.get(path, 0):
                    self._take_in(path)
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _append(self, name: str, what: str, dollars: float) -> None:
        os.write(self._file, json.dumps({"name": name, what: dollars}).encode() + b"\n")
        self._take_in(self._path)

    def _take_in(self, path: Path) -> None:
        offset = self._read_to.get(path, 0)
        with path.open("rb") as stream:
            stream.seek(offset)
            for line in stream:
                if not line.endswith(b"\n"):  # torn by a kill: its request never left
                    break
                offset += len(line)
                found = json.loads(line)
                name = found["name"]
                if "spent" in found:
                    self._spent.setdefault(name, found["spent"])
                    self._held.pop(name, None)
                elif name not in self._spent:
                    self._held[name] = found["held"]
                    self._writers.setdefault(name, set()).add(path)
        self._read_to[path] = offset


def _alive(path: Path) -> bool:
    """Whether the process that writes this file lives: whether its lock is held."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
