"""`tilt run trainer.devices=2`: what a value training in two processes leaves in the store when one is killed, and
after the next run."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages import records
from stages.learn.values.train import TrainValue
from stages.records import Labelled, Prompt

EPOCHS, EVERY, TOKENS = 4, 5, (270, 280)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """60 rollouts of one or two tokens and EOS to 10 prompts."""
    prompts = [Prompt(id=f"p{i}", part="train", text="the film " * (1 + i % 3)) for i in range(10)]
    rollouts = [
        Labelled(
            prompt_id=f"p{i % 10}",
            sample=i // 10,
            token_ids=[*(TOKENS[i % 2] for _ in range(1 + i % 3)), 2],
            text="",
            logprob=-1.0,
            finished=True,
            part="train",
            rewards={"proxy": float(i % 2) + 0.1 * (i % 5)},
        )
        for i in range(60)
    ]
    folder = tmp_path / "labels"
    records.write(folder / "prompts.parquet", Prompt, prompts)
    records.write(folder / "labels.parquet", Labelled, rollouts)
    return folder


def run(folder: Path, labels: Path, model: Path, watched: Callable[[], None]) -> tuple[int, str]:
    """The command in `folder`; `watched` is called until it ends."""
    command = [str(Path(sys.executable).with_name("tilt")), "run", "goal=[value]", "executor.retries=0"]
    command += ["model=local", f"model.path={model}", "model.dtype=float32", "policy=as_is"]
    command += [f"stages.value.{name}=${{file:{labels}}}" for name in ("labels", "prompts")]
    command += ["value.layer=2", "value.lora_rank=4", f"value.epochs={EPOCHS}", "value.batch_size=5"]
    command += ["trainer.devices=2", f"trainer.checkpoint_every={EVERY}"]
    with (folder / "output.txt").open("w+") as output:
        environment = os.environ | {"COLUMNS": "300"}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            watched()
            time.sleep(0.03)
        output.seek(0)
        return process.returncode, output.read()


@functools.cache
def step(checkpoint: Path, written: int) -> int:
    return int(torch.load(checkpoint, weights_only=True, map_location="meta")["global_step"])


def kept_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that lie in the store."""
    found = []
    for path in (folder / "store/staging").glob("*/checkpoints/last.ckpt"):
        with contextlib.suppress(OSError):  # removed at this moment
            found.append(step(path, path.stat().st_mtime_ns))
    return found


def published(folder: Path, stage: str) -> list[Path]:
    manifests = (folder / "store/objects").glob("*/*/manifest.json")
    return [path.parent / "payload" for path in manifests if json.loads(path.read_text())["stage"] == stage]


def test_a_killed_process_publishes_nothing_and_the_next_run_goes_on_to_the_same_weights(
    tmp_path: Path, labels: Path, tiny_model: Path, rank_process: Callable[[Path, int], int | None]
):
    killed: list[int] = []

    def kill() -> None:
        if not killed and max(kept_steps(tmp_path), default=0) >= 2 * EVERY:
            killed.append(rank_process(tmp_path, 1))
            os.kill(killed[0], signal.SIGKILL)

    code, output = run(tmp_path, labels, tiny_model, kill)
    assert (code, len(killed)) == (1, 1), output
    assert "process 1 of 2 ended by SIGKILL" in output
    assert "Traceback" not in output
    assert published(tmp_path, "value") == []
    (died,) = kept_steps(tmp_path)
    assert [rank_process(tmp_path, rank) for rank in (0, 1)] == [None, None]

    seen: set[int] = set()
    code, output = run(tmp_path, labels, tiny_model, lambda: seen.update(kept_steps(tmp_path)))
    assert code == 0, output
    assert min(seen) == died < max(seen)  # it went on from there
    (payload,) = published(tmp_path, "value")
    assert list((tmp_path / "store/staging").iterdir()) == []

    alone = tmp_path / "alone"
    alone.mkdir()
    fields = {"layer": 2, "lora_rank": 4, "epochs": EPOCHS, "batch_size": 5, "dtype": "float32"}
    TrainValue(labels=labels, prompts=labels, base=tiny_model, **fields).run(alone)
    written = [sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) for folder in (payload, alone)]
    assert written[0] == written[1]  # one process wrote
    for name in ("value.safetensors", "model/model.safetensors"):
        whole, resumed = load_file(alone / name), load_file(payload / name)
        apart = sum(float((whole[key] - resumed[key]).norm() ** 2) for key in whole) ** 0.5
        assert apart < 1e-4 * sum(float(whole[key].norm() ** 2) for key in whole) ** 0.5
