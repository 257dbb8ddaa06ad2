"""One store for many users, disks and checkouts: permissions, file systems, secrets."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def modes(store: Path) -> set[tuple[str, int]]:
    return {
        ("folder" if path.is_dir() else "file", stat.S_IMODE(path.stat().st_mode))
        for path in store.rglob("*")
        if not path.is_symlink()
    }


def with_umask(toy, umask: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        toy.command("run", *arguments),
        cwd=toy.path,
        env=toy.environment(),
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_groups_store_stays_the_groups_whatever_the_umask_of_who_writes(toy) -> None:
    store = toy.path / "store"
    store.mkdir()
    store.chmod(0o2770)
    assert with_umask(toy, 0o077).returncode == 0
    # published: nobody writes, the group reads; everything else: the group writes too; the world sees nothing
    assert modes(store) == {("folder", 0o2770), ("folder", 0o2550), ("file", 0o440), ("file", 0o660)}


def test_a_private_store_stays_private_whatever_the_umask_of_who_writes(toy) -> None:
    store = toy.path / "store"
    store.mkdir()
    store.chmod(0o700)
    assert with_umask(toy, 0o000).returncode == 0
    assert {mode & 0o077 for _, mode in modes(store)} == {0}


ORDINARY = () if os.geteuid() != 0 else ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner")

"""Before a command: takes from root what lets it pass over permissions, so that it is an ordinary user."""


def may_be_ordinary() -> bool:
    try:
        return subprocess.run([*ORDINARY, "true"], check=False).returncode == 0
    except FileNotFoundError:
        return False


ordinary_user = pytest.mark.skipif(not may_be_ordinary(), reason="root needs setpriv to become an ordinary user")


def tilt_as_ordinary_user(toy, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*ORDINARY, *toy.command(*arguments)],
        cwd=toy.path,
        env=toy.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@ordinary_user
def test_an_ordinary_user_publishes_forces_verifies_and_collects(toy) -> None:
    ran = tilt_as_ordinary_user(toy, "run")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    forced = tilt_as_ordinary_user(toy, "force", "first", "--downstream")
    assert forced.stdout.count("will run again") == 3, forced.stdout + forced.stderr
    assert tilt_as_ordinary_user(toy, "run").returncode == 0
    said = next(toy.path.glob("store/objects/*/*/payload/said.txt"))
    said.chmod(0o644)
    said.write_text("J" + said.read_text()[1:])
    said.chmod(0o444)
    verified = tilt_as_ordinary_user(toy, "verify")
    assert verified.returncode == 1
    assert "said.txt has other bytes than were published" in verified.stdout
    assert tilt_as_ordinary_user(toy, "gc", "--keep-runs", "0s").returncode == 0
    assert not list(toy.path.glob("store/objects/*/*"))


@ordinary_user
def test_a_read_only_store_is_one_line_where_something_must_run_and_serves_what_is_there(toy) -> None:
    assert tilt_as_ordinary_user(toy, "run").returncode == 0
    store = toy.path / "store"
    subprocess.run(["chmod", "-R", "a-w", str(store)], check=True)
    reused = tilt_as_ordinary_user(toy, "run")
    assert reused.returncode == 0, reused.stdout + reused.stderr
    assert reused.stdout.count("reused") == 3
    refused = tilt_as_ordinary_user(toy, "run", "voice.word=other")
    assert refused.returncode == 2
    assert refused.stderr == f"tilt: store: {store} cannot be written (Permission denied); set store=/another/folder\n"
    subprocess.run(["chmod", "-R", "u+w", str(store)], check=True)


@root_only
def test_the_store_may_lie_on_another_file_system_than_the_checkout(toy) -> None:
    disk = toy.path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        assert (disk.stat().st_dev, disk.stat().st_mode & 0o777) != (toy.path.stat().st_dev, 0)
        assert toy.tilt("run", f"store={disk}/store").returncode == 0
        toy.executed()
        assert toy.tilt("run", f"store={disk}/store").returncode == 0
        assert toy.executed() == []
        assert (toy.path / "runs/latest/point/second/said.txt").read_text() == "WELL\nHELLO\n"
        remounted = subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False)
        if remounted.returncode == 0:
            refused = toy.tilt("run", f"store={disk}/store", "voice.word=other")
            assert refused.returncode == 2
            assert "cannot be written (Read-only file system); set store=" in refused.stderr
            assert refused.stderr.count("\n") == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)
