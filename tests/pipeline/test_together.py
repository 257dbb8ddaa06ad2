"""Many processes, sudden deaths, other hosts: each stage runs once, and nothing half-written is ever used."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROUNDS = int(os.environ.get("TILT_SOAK_ROUNDS", "20"))
SWEEP = ["-m", "voice.word=hello,goodbye,salut", "voice.seconds=0.2"]
RESULT = "WELL HELLO\nWELL GOODBYE\nWELL SALUT\n"


ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
"""Before a command: runs it on what looks like another host."""


def may_unshare() -> bool:
    tried = subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False)
    return tried.returncode == 0


def start(toy, *arguments: str, before: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*before, *toy.command("run", *arguments)],
        cwd=toy.path,
        env=toy.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def lease_seconds(toy, seconds: float) -> None:
    (toy.path / "store").mkdir(exist_ok=True)
    (toy.path / "store/settings.json").write_text(json.dumps({"schema": 1, "lease_seconds": seconds}))


@pytest.mark.parametrize("hosts", [1, 2])
def test_sixteen_processes_on_one_sweep_run_each_stage_once(toy, hosts: int) -> None:
    if hosts == 2 and not may_unshare():
        pytest.skip("a second host name needs unshare --uts")
    places = [(), ELSEWHERE][:hosts]
    processes = [start(toy, *SWEEP, f"name=n{n}", before=places[n % hosts]) for n in range(16)]
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 16, said
    assert sorted(toy.executed()) == ["goodbye", "hello", "salut", "well"]
    results = [path.read_text() for path in (toy.path / "runs").glob("*/comparison.csv")]
    assert results == [RESULT] * len(results)
    assert len(results) >= 16
    assert not list((toy.path / "store/leases").iterdir())


def descendants(root: int) -> list[int]:
    """Processes below one, workers included, which lead groups of their own."""
    parents: dict[int, int] = {}
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        with suppress(OSError):
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def kill_somebody(process: "subprocess.Popen[str]", rng: random.Random) -> str:
    """kill -9 to the supervisor alone, to one of its descendants, or to all of them."""
    below = descendants(process.pid)
    victim = rng.choice(["supervisor", "worker", "all"])
    chosen = {
        "supervisor": [process.pid],
        "worker": rng.sample(below, min(1, len(below))),
        "all": [*below, process.pid],
    }
    for pid in chosen[victim]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return victim


def test_kill_9_at_random_moments_never_costs_a_finished_stage_nor_shows_half_of_one(toy) -> None:
    rng = random.Random(0)
    lease_seconds(toy, 2.0)
    published: set[str] = set()
    for round_ in range(ROUNDS):
        if round_ % 5 == 4:  # begin again now and then, so that every stage is hit
            shutil.rmtree(toy.path / "store/objects")
            (toy.path / "store/objects").mkdir()
            published = set()
        toy.executed()
        process = start(toy, *SWEEP)
        time.sleep(rng.uniform(0.0, 2.5))
        kill_somebody(process, rng)
        process.communicate(timeout=60)
        executed = toy.executed()
        again = {word for word in executed if word in published}
        assert not again, f"round {round_}: {again} was published and ran again"
        for manifest in (toy.path / "store/objects").glob("*/*/manifest.json"):
            said = manifest.parent / "payload/said.txt"
            if said.exists():
                published.add(said.read_text().split()[-1].lower())
        for payload in (toy.path / "store/objects").glob("*/*"):
            assert (payload / "manifest.json").exists(), "an object without a manifest"
    final = toy.tilt("run", *SWEEP)
    assert final.returncode == 0, final.stdout + final.stderr
    assert (toy.path / "runs/latest/comparison.csv").read_text() == RESULT
    assert not {word for word in toy.executed() if word in published}
    assert toy.tilt("gc", "--keep-runs", "1d").returncode == 0
    assert not list((toy.path / "store/staging").iterdir())
    assert "0 were not" in toy.tilt("verify").stdout


@pytest.mark.skipif(not may_unshare(), reason="a second host name needs unshare --uts")
def test_a_holder_that_died_on_another_host_is_taken_over_after_the_lease_time(toy) -> None:
    lease_seconds(toy, 4.0)
    holder = start(toy, "voice.seconds=8", before=ELSEWHERE)
    deadline = time.monotonic() + 60
    while "hello" not in (toy.witness.read_text() if toy.witness.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(holder.pid, signal.SIGKILL)
    holder.communicate(timeout=30)
    assert [path for path in (toy.path / "store/staging").iterdir() if ".elsewhere-" in path.name]
    assert sorted(toy.executed()) == ["hello", "well"]
    began = time.monotonic()
    taken = toy.tilt("run", "voice.seconds=8")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert "is being run by another process" in taken.stdout
    assert toy.executed() == ["hello"]
    assert time.monotonic() - began > 4.0 + 8.0 - 1.0  # the lease ran out first, then the stage ran


@pytest.mark.skipif(not may_unshare(), reason="a second host name needs unshare --uts")
def test_a_holder_that_lives_on_another_host_is_waited_for(toy) -> None:
    lease_seconds(toy, 4.0)
    holder = start(toy, "voice.seconds=8", before=ELSEWHERE)
    ours = start(toy, "voice.seconds=8")
    assert holder.wait(timeout=120) == 0
    assert ours.wait(timeout=120) == 0
    assert sorted(toy.executed()) == ["hello", "well"]
