"""`tilt status`: where every stage stands."""

import os
import signal
import subprocess
import time


def test_status_tells_done_failed_and_missing(toy) -> None:
    toy.tilt("run", "voice.how=badly")
    rows = {line.split()[0]: line for line in toy.tilt("status", "voice.how=badly").stdout.splitlines()[1:]}
    assert "done" in rows["first"]
    assert "failed" in rows["second"]
    assert "the voice broke" in rows["second"]
    assert "missing" in rows["compare"]


def test_status_of_a_run_that_was_killed_is_not_running(toy) -> None:
    with subprocess.Popen(
        toy.command("run", "voice.seconds=60"), cwd=toy.path, env=toy.environment(), start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while "hello" not in (toy.witness.read_text() if toy.witness.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "running" in toy.tilt("status", "voice.seconds=60").stdout
        os.kill(process.pid, signal.SIGKILL)
    assert list((toy.path / "store/leases").iterdir())
    assert "running" not in toy.tilt("status", "voice.seconds=60").stdout


def test_status_of_a_sweep_is_a_matrix_of_stages_and_points(toy) -> None:
    toy.tilt("run", "-m", "voice.word=a,b", "voice.how=well,badly")
    lines = toy.tilt("status", "-m", "voice.word=a,b", "voice.how=well,badly").stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:4]}
    # points: 1 (a, well), 2 (a, badly), 3 (b, well), 4 (b, badly)
    assert rows == {"first": ["●"] * 4, "second": ["●", "✗", "●", "✗"], "compare": ["○"] * 4}
    assert "2  word=a how=badly" in lines
