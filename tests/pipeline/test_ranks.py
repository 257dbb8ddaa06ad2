"""Several processes of one stage: who each is told to be, who speaks for all, and how they end."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import ranks
from pipeline.executors import InProcess, Local
from pipeline.stage import Spec

MEMBER = '''
import os, pathlib, signal, subprocess, sys, time
from dataclasses import dataclass, field
from typing import Any

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")

class Refused(ValueError):
    def __init__(self, field, problem):
        super().__init__(problem)
        self.field, self.problem = field, problem

@dataclass
class Handles:
    rank: int = -1
    world: int = -1
    progress: Any = None
    metrics: Any = None

@dataclass
class Member:
    """Each process leaves word of itself in `folder` and waits for the others'; then that of rank `who` does `what`."""
    folder: str
    what: str = ""
    who: int = 1
    runtime: Handles = field(default_factory=Handles)

    def run(self, out):
        here, rank = pathlib.Path(self.folder), self.runtime.rank
        told = [str(self.runtime.world), *(os.environ[name] for name in NAMES)]
        (here / f"told{rank}").write_text(" ".join(told))
        print("this is", rank, flush=True)
        (here / f"pid{rank}.part").write_text(str(os.getpid()))
        os.rename(here / f"pid{rank}.part", here / f"pid{rank}")
        while len([path for path in here.glob("pid*") if path.suffix == ""]) < self.runtime.world:
            time.sleep(0.02)
        self.runtime.progress(rank, 10, f"rank {rank}")
        self.runtime.metrics({"rank": rank})
        (out / f"by{rank}").touch()
        if self.what == "outlive" and rank == self.who:
            return
        if self.what == "outlive":
            time.sleep(1.5)
            other = pathlib.Path(f"/proc/{(here / f'pid{self.who}').read_text()}/stat")
            (out / "other").write_text(other.read_text().split()[2])
        if rank == self.who:
            {"kill": lambda: os.kill(os.getpid(), 9), "exit": lambda: os._exit(9), "": lambda: None,
             "sleep": lambda: time.sleep(60), "refuse": self.refuse, "fail": self.fail}[self.what]()
        elif self.what in ("kill", "exit", "refuse"):
            time.sleep(0.2 if self.what == "kill" else 60)
            raise RuntimeError("connection closed by peer")
        elif self.what == "fail":
            time.sleep(60)

    def refuse(self):
        raise Refused("what", "refuse is nothing to do; leave it out")

    def fail(self):
        raise FloatingPointError("the loss is nan")
'''


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`member(what, …)`: the spec of a stage in two processes that live in a folder of the test."""
    (tmp_path / "member.py").write_text(MEMBER)
    monkeypatch.syspath_prepend(tmp_path)

    def spec(what: str = "", processes: int = 2, **fields: Any) -> Spec:
        staging = tmp_path / "staging" / "key"
        (staging / "payload").mkdir(parents=True)
        handles = {"_target_": "member.Handles"}
        config = {"_target_": "member.Member", "folder": str(tmp_path), "what": what, "runtime": handles} | fields
        plain = {"preimage": {}, "code": {}, "inputs": {}, "commit": ""}
        return Spec("key", "member", config, staging, 3, processes=processes, **plain)

    return spec


def run(spec: Spec) -> list[tuple[Any, ...]]:
    """All events of a stage, to its end."""
    executor = Local(cores=2)
    executor.start(spec)
    found: list[tuple[Any, ...]] = []
    try:
        while not found or found[-1][0] == "progress":
            found += [event for _, event in executor.events(0.2)]
    finally:
        executor.stop()
    return found


def pid(folder: Path, rank: int) -> int:
    """The process of a rank, as soon as it runs."""
    path, until = folder / f"pid{rank}", time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    return int(path.read_text())


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_each_process_is_told_which_one_it_is_and_where_they_meet(member, tmp_path: Path) -> None:
    assert run(member())[-1][0] == "done"
    first, second = ((tmp_path / f"told{rank}").read_text().split() for rank in (0, 1))
    # world (of the runtime), RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT, OMP_NUM_THREADS
    assert first == ["2", "0", "2", "0", "127.0.0.1", first[5], "3"]
    assert second == ["2", "1", "2", "1", "127.0.0.1", first[5], "3"]
    assert 0 < int(first[5]) < 1 << 16


def test_the_first_process_alone_reports_writes_and_has_a_manifest(member, tmp_path: Path) -> None:
    spec = member()
    *progress, done = run(spec)
    assert [event[3] for event in progress] == ["rank 0"]
    assert done[:2] == ("done", {"rank": 0.0})
    assert [path.name for path in (spec.staging / "payload").iterdir()] == ["by0"]
    assert list(json.loads((spec.staging / "manifest.json").read_text())["files"]) == ["by0"]
    assert (spec.staging / "log.txt").read_text() == "this is 0\n"


@pytest.mark.parametrize("who", [0, 1])
def test_one_that_is_killed_ends_all_and_is_named_with_its_last_line(member, tmp_path: Path, who: int) -> None:
    spec = member("kill", who=who)  # the other one fails soon after it, as a training does whose peer is gone
    event, told = run(spec)[-1]
    assert event == "failed"
    assert told["message"] == f"process {who} of 2 ended by SIGKILL (was memory short?): this is {who}"
    assert (told["kind"], told["retryable"]) == ("error", True)
    assert gone(pid(tmp_path, 1 - who))
    assert not (spec.staging / "manifest.json").exists()
    assert "--- process 1 of 2 ---\nthis is 1\n" in (spec.staging / "log.txt").read_text()


def test_one_that_leaves_without_a_word_is_named_and_not_tried_again(member, tmp_path: Path) -> None:
    _, told = run(member("exit"))[-1]
    assert told["message"] == "process 1 of 2 ended by exit code 9: this is 1"
    assert not told["retryable"]
    assert gone(pid(tmp_path, 0))


def test_a_death_that_is_seen_after_the_failure_it_caused_is_the_cause(member, monkeypatch) -> None:
    failure = ("failed", {"kind": "error", "field": "", "message": "RuntimeError: closed by peer", "retryable": False})
    spec = member()
    for rank in (0, 1):
        ranks._log(spec, rank).touch()
    arrived = {0: [[failure], []], 1: [[], [("died", -9)]]}
    group = ranks.Ranks(spec, [0, 1])  # type: ignore[list-item]
    monkeypatch.setattr(ranks, "_arrived", lambda worker: arrived[worker].pop(0))
    assert group.events() == []
    ((_, told),) = group.events()
    assert told["message"] == "process 1 of 2 ended by SIGKILL (was memory short?)"


def test_what_one_refuses_is_the_one_line(member, tmp_path: Path) -> None:
    _, told = run(member("refuse"))[-1]
    assert (told["kind"], told["field"]) == ("input", "what")
    assert told["message"] == "refuse is nothing to do; leave it out"
    assert gone(pid(tmp_path, 0))
    assert gone(pid(tmp_path, 1))


def test_an_error_of_another_process_says_whose_it_is(member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "GRACE", 0.5)
    spec = member("fail")
    _, told = run(spec)[-1]
    assert told["message"] == "process 1 of 2: FloatingPointError: the loss is nan"
    assert "Traceback" in (spec.staging / "log.txt").read_text()


def test_one_that_is_done_stays_until_all_are(member) -> None:
    spec = member("outlive")
    assert run(spec)[-1][0] == "done"
    assert (spec.staging / "payload" / "other").read_text() in "SR"  # it sleeps, and is no zombie


def test_one_that_never_finishes_ends_the_stage_and_says_where_it_stands(member, monkeypatch) -> None:
    monkeypatch.setattr(ranks, "PATIENCE", 1.0)
    _, told = run(member("sleep"))[-1]
    assert told["message"].startswith("a process was not finished within 1 s; it stood at ")
    assert "member.py" in told["message"]
    assert " in run" in told["message"]


def test_none_is_left_when_who_started_them_is_killed(member, tmp_path: Path) -> None:
    path = member("sleep", who=0).save()
    program = (
        "import sys, time; from pathlib import Path; from pipeline.executors import Local; "
        "from pipeline.stage import Spec; executor = Local(cores=2); executor.start(Spec.load(Path(sys.argv[1])))\n"
        "while True: executor.events(0.2)"
    )
    modules = os.pathsep.join(filter(None, sys.path))
    runner = subprocess.Popen([sys.executable, "-c", program, str(path)], env=os.environ | {"PYTHONPATH": modules})
    both = [pid(tmp_path, 0), pid(tmp_path, 1)]
    runner.kill()
    runner.wait()
    until = time.monotonic() + 10
    while not all(map(gone, both)) and time.monotonic() < until:
        time.sleep(0.05)
    assert all(map(gone, both))


def test_a_stage_of_several_processes_is_refused_where_there_is_one(member) -> None:
    executor = InProcess()
    executor.start(member())
    ((_, (event, told)),) = executor.events(0.0)
    assert (event, told["kind"], told["field"]) == ("failed", "input", "resources.processes")
    assert told["message"] == ("executor=inprocess runs a stage in one process, not in 2; set 1, or executor=local")


LIGHTNING = '''
import dataclasses, os, pathlib
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, _):
        return self.layer(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

@dataclasses.dataclass
class Train:
    """A training in two ranks; `dies` ends the second one in the middle."""
    folder: str
    dies: bool = False
    def run(self, out):
        with open(pathlib.Path(self.folder) / "witness.txt", "a") as stream:
            stream.write(f"rank{os.environ.get('LOCAL_RANK', 0)}\\n")
        trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=3, logger=False,
                          enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(Line(), DataLoader(torch.ones(12, 1), batch_size=2))
        if self.dies and trainer.global_rank == 1:
            os._exit(9)
        trainer.strategy.barrier()
        (out / f"weights{trainer.global_rank}.txt").write_text(f"{trainer.world_size}")
'''
"""A user's own training: Lightning finds in the environment what the runner says."""


@pytest.fixture
def training(toy) -> list[str]:
    (toy.path / "ranks.py").write_text(LIGHTNING)
    train = f"+stages.train={{_target_: ranks.Train, folder: {toy.path}, resources: {{processes: 2}}}}"
    return ["-m", "goal=[train,apart]", train, "voice.word=hello,goodbye"]


def test_lightnings_ddp_trains_in_the_processes_that_the_runner_started(toy, training: list[str]) -> None:
    outcome = toy.tilt("run", *training)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert sorted(toy.executed()) == ["alone", "rank0", "rank1"]
    manifests = [json.loads(path.read_text()) for path in (toy.path / "store/objects").glob("*/*/manifest.json")]
    (trained,) = [manifest for manifest in manifests if manifest["stage"] == "train"]
    assert list(trained["files"]) == ["weights0.txt"]  # rank 0 alone publishes
    assert Path(toy.path / "store/objects" / trained["key"][:2] / trained["key"]).is_dir()


def test_a_rank_that_dies_fails_the_stage_and_leaves_no_process_behind(toy, training: list[str]) -> None:
    outcome = toy.tilt("run", *training, "+stages.train.dies=true", "executor.retries=0")
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert "process 1 of 2 ended by exit code 9" in outcome.stdout
    assert "alone" in toy.executed()
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and str(toy.path) in command_line(pid)]
    objects = (toy.path / "store/objects").glob("*/*/manifest.json")
    assert [json.loads(path.read_text())["stage"] for path in objects] == ["apart"]


def command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
