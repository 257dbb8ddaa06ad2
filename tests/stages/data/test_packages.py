"""Archives and what pip says: members taken out, nothing written elsewhere, one line for what went wrong."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from stages.data import packages
from stages.data.packages import extract
from stages.errors import BadInput


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError("
            "'<pip.HTTPSConnection object at 0x7f>: Failed to establish a new connection: [Errno -2] Name or service "
            "not known')': /simple/x/",
            "NewConnectionError('Failed to establish a new connection: [Errno -2] Name or service not known')",
        ),
        (
            "ERROR: HTTP error 403 while getting https://mirror.example.org/a/x.whl",
            "HTTP error 403 while getting the package index",
        ),
        (
            "ERROR: HTTPSConnectionPool(host='mirror.example.org', port=443): Read timed out.",
            "HTTPSConnectionPool(the package index): Read timed out.",
        ),
    ],
)
def test_pips_words_are_passed_on_without_addresses(line: str, shown: str) -> None:
    assert packages._shortened(line) == shown


@pytest.mark.parametrize("evil", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_no_name_leads_outside_of_out(tmp_path: Path, out: Path, evil: str) -> None:
    archive = tmp_path / "data.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr(f"data/{evil}", b"x")
    with pytest.raises(BadInput, match="outside of its own folder"):
        extract(archive, "data/", out)
    assert list(out.iterdir()) == []


def build_sdist(path: Path, *, link: bool = False) -> Path:
    with tarfile.open(path, "w:gz") as sdist:
        info = tarfile.TarInfo("data-1.0/data/rows.json")
        info.size = 2
        sdist.addfile(info, io.BytesIO(b"[]"))
        if link:
            info = tarfile.TarInfo("data-1.0/data/passwd")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            sdist.addfile(info)
    return path


def test_members_of_an_sdist_are_named_inside_its_top_folder(tmp_path: Path, out: Path) -> None:
    extract(build_sdist(tmp_path / "data-1.0.tar.gz"), "data/rows.json", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"rows.json": b"[]"}


def test_links_in_an_archive_are_never_followed(tmp_path: Path, out: Path) -> None:
    extract(build_sdist(tmp_path / "data-1.0.tar.gz", link=True), "data/", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"rows.json": b"[]"}


def test_an_unreadable_archive_is_one_line(tmp_path: Path, out: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"not an archive")
    with pytest.raises(BadInput, match=r"^package: x.whl is not a readable archive"):
        extract(tmp_path / "x.whl", "a", out)


def test_a_full_disk_is_not_mistaken_for_bad_input() -> None:
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    refusal = packages._refusal("data==1.0", "0" * 64, said)
    assert isinstance(refusal, OSError)
    assert refusal.errno == 28


def test_pip_dies_with_an_interrupted_stage(tmp_path: Path) -> None:
    import subprocess

    def interrupt(size: int) -> None:
        raise KeyboardInterrupt

    started = []
    real = subprocess.Popen

    class Recorded(real):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages.subprocess, "Popen", Recorded)
        with pytest.raises(KeyboardInterrupt):
            packages._run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, interrupt)
    assert started[0].returncode is not None


def test_a_folder_lands_in_out_itself_and_a_file_under_its_own_name(tmp_path: Path, out: Path) -> None:
    archive = tmp_path / "data.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        for name in ("data/a.txt", "data/sub/b.txt", "data.txt"):
            wheel.writestr(name, name)
    assert sorted(path.relative_to(out).as_posix() for path in extract(archive, "data/", out)) == ["a.txt", "sub/b.txt"]
    assert [path.relative_to(out).as_posix() for path in extract(archive, "data/sub/b.txt", out)] == ["b.txt"]
    with pytest.raises(
        BadInput, match=r"^member: data\.whl holds no 'data/c\.txt'; it holds data\.txt, data/a\.txt, data/sub"
    ):
        extract(archive, "data/c.txt", out)
