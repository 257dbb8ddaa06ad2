"""The DAG runner: planning, cached sweeps, the cost of a stage that does nothing, keys. All through the command line
but the last, which is a function's."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.keys import digest, preimage
from pipeline.store import Manifest, Store, write_manifest

STAGES = """
import dataclasses, typing


@dataclasses.dataclass
class Nothing:
    value: float = 0.0
    of: typing.Any = None
    other: typing.Any = None
    def run(self, out):
        (out / "said.txt").write_text(str(self.value))

@dataclasses.dataclass
class Gather:
    points: list
    def run(self, out):
        (out / "summary.txt").write_text(f"{len(self.points)} points")
"""
# seven stages a point: four that all share, three of the point's own
CONF = """
defaults: [executor: local, tracking: none, _self_, {override hydra/launcher: graph}, {override hydra/sweeper: blocks},
           {override hydra/job_logging: none}, {override hydra/hydra_logging: none}]
executor: {preload: []}
name: bench
store: store
runs: runs
goal: [compare]
objective: null
sweep: null
method: {beta: 1.0, k: 20, seed: 0}
stages:
  prompts: {_target_: bench_nothing.Nothing}
  rollouts: {_target_: bench_nothing.Nothing, of: "${stage:prompts}"}
  labels: {_target_: bench_nothing.Nothing, of: "${stage:rollouts}"}
  value: {_target_: bench_nothing.Nothing, of: "${stage:labels}", value: "${method.seed}"}
  decode: {_target_: bench_nothing.Nothing, of: "${stage:value}", other: "${stage:prompts}", value: "${method.beta}"}
  score: {_target_: bench_nothing.Nothing, of: "${stage:decode}", other: "${stage:prompts}"}
  judge: {_target_: bench_nothing.Nothing, of: "${stage:decode}", other: "${stage:score}"}
compare:
  _target_: bench_nothing.Gather
  points: {score: "${stage:score}", judge: "${stage:judge}", beta: "${method.beta}"}
hydra:
  run: {dir: "runs/${now:%H-%M-%S-%f}"}
  sweep: {dir: "runs/${now:%H-%M-%S-%f}"}
  output_subdir: null
"""
EMPTY = Manifest("", "", {"stage": "bench_nothing.Nothing"}, {}, {}, {}, {}, "2026-01-01", 1.0, "here", {}, "")


class Project:
    """A project of stages that do nothing, in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "conf").mkdir()
        (root / "conf/bench.yaml").write_text(CONF)
        (root / "bench_nothing.py").write_text(STAGES)

    def tilt(self, verb: str, points: int) -> str:
        """What one command over so many points prints."""
        betas = ",".join(str(n / 8) for n in range(points))
        tilt = [str(Path(sys.executable).with_name("tilt")), *verb.split(), "--config-dir", str(self.root / "conf")]
        done = subprocess.run(
            [*tilt, "--config-name", "bench", "-m", f"method.beta={betas}"],
            cwd=self.root,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-500:] + done.stderr)
        return done.stdout

    def seconds(self, verb: str, points: int) -> float:
        """Wall time of one command over so many points, Python's start included."""
        began = time.perf_counter()
        self.tilt(verb, points)
        return time.perf_counter() - began

    def fill(self, points: int) -> None:
        """Publishes what the stages of so many points would have written, without a process for each."""
        store = Store(self.root / "store")
        for stage in json.loads(self.tilt("plan --json", points))["stages"]:
            staging = store.stage(stage["key"])
            (staging / "payload/said.txt").write_text("0.0")
            write_manifest(staging, dataclasses.replace(EMPTY, key=stage["key"], stage=stage["stage"]))
            store.publish(staging, stage["key"])


def row(name: str, value: float, unit: str, bar: float | None = None) -> dict[str, Any]:
    """A row whose promise is an upper bound."""
    return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": bar is None or value <= bar}


def rows() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        for points, bar in ((10, None), (100, None), (1000, 10.0)):
            seconds = statistics.median(project.seconds("plan", points) for _ in range(3))
            yield row(f"plan {points:,} points of 7 stages, nothing stored", seconds, "s", bar)
        few, many = 10, 60
        start, end = project.seconds("run", few), project.seconds("run", many)
        # 3 stages of its own a point; the larger sweep finds the smaller one's in the store
        yield row("a stage that does nothing, executed", (end - start) / (3 * (many - few)), "s a stage", 0.3)
        project.fill(1000)
        for points, bar in ((10, None), (100, None), (1000, 20.0)):
            seconds = statistics.median(project.seconds("run", points) for _ in range(3))
            yield row(f"run {points:,} points of 7 stages, all of them stored", seconds, "s", bar)
        seconds = statistics.median(project.seconds("plan", 1000) for _ in range(3))
        yield row("plan 1,000 points of 7 stages, all of them stored", seconds, "s")
        subprocess.run(["chmod", "-R", "u+w", folder], check=False)
    for nodes, bar in ((1_000, None), (10_000, 2.0)):
        yield row(f"keys of {nodes:,} nodes", statistics.median(keys(nodes) for _ in range(3)), "s", bar)


def keys(count: int) -> float:
    """Seconds for so many keys of configurations as large as `decode`'s, each with two inputs."""
    guide = {"_target_": "a.b.C", "value": "x" * 64, "beta": 1.0, "k": 20, "outside": "mean", "force": False}
    config = {"prompts": "stage", "parts": ["a", "b"], "policy": {"folder": "y" * 64, "dtype": "float32"}, "n": 1}
    config |= {"sampling": {"temperature": 0.9, "top_p": 0.9, "top_k": 0, "min_p": 0.0, "max_new_tokens": 24}}
    previous = ["0" * 64, "1" * 64]
    began = time.perf_counter()
    for number in range(count):
        image = preimage("stages.decode.Decode", config | {"guide": guide | {"beta": number / 7}}, "c" * 64, previous)
        previous = [previous[1], digest(image)]
    return time.perf_counter() - began
