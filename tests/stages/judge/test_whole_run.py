"""`tilt run` with judges over the wire: the money of a whole sweep, keys, exit codes; stages in several processes."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.stages.judge.judging import longer_wins
from tests.stages.servers.loopback import MODEL, Fault, Loopback, is_preflight

TEXTS = '''
from dataclasses import dataclass
from pathlib import Path

from stages import records
from stages.records import Generation, Prompt


@dataclass
class Texts:
    """Prompts and the answers of one method: the longer, the more words it was given."""

    words: int = 1
    prompts: int = 12

    def run(self, out: Path) -> None:
        ids = [f"p{i:02}" for i in range(self.prompts)]
        records.write(out / "prompts.parquet", Prompt, [Prompt(id=i, part="test", text=f"Asked {i}") for i in ids])
        rows = [
            Generation(
                prompt_id=i, sample=0, token_ids=[1], text=f"{i} " + "word " * self.words, logprob=0.0, finished=True,
                part="test", method=f"m{self.words}", settings="{}", base_logprob=0.0, kl=0.0, kl_kind="none",
                tokens=1, flops=1.0, seconds=1.0,
            )
            for i in ids
        ]
        records.write(out / "generations.parquet", Generation, rows)
'''
CONFIG = """
defaults:
  - executor: local
  - tracking: none
  - judge: compatible
  - prices@prices
  - _self_
  - override hydra/launcher: graph
  - override hydra/sweeper: blocks
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
executor: {preload: [stages], cores: 2}
prices: {models: {judge-2026-01-01: {input: 10.0, output: 30.0, batch: 0.5}}}
judge: {model: judge-2026-01-01, mode: logprob, max_tokens: 1, token_limit: max_completion_tokens, concurrency: 4}
name: study
store: store
runs: runs
goal: [judge]
sweep: null
max_cost: null
words: 2
stages:
  prompts: {_target_: texts.Texts}
  decode: {_target_: texts.Texts, words: "${words}"}
  reference: {_target_: texts.Texts}
  judge:
    _target_: stages.judge.judge.Judge
    generations: ${stage:decode}
    reference_generations: ${stage:reference}
    prompts: ${stage:prompts}
    judges: {main: "${judge.scorer}"}
    canary: 0
    runtime: {_target_: stages.runtime.Runtime}
hydra:
  run: {dir: "runs/${now:%H-%M-%S-%f}"}
  sweep: {dir: "runs/${now:%H-%M-%S-%f}"}
  output_subdir: null
"""
POINTS = "words=2,3,4"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "study.yaml").write_text(CONFIG)
    (tmp_path / "texts.py").write_text(TEXTS)
    return tmp_path


def tilt(project: Path, server: Loopback, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("tilt")), "run", "-m", "--config-dir", str(project / "conf")]
    return subprocess.run(
        [*command, "--config-name", "study", f"judge.base_url={server.base_url}", *arguments],
        cwd=project,
        env=os.environ | {"COLUMNS": "250"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_all_judges_of_a_sweep_stay_below_one_ceiling_and_a_second_run_goes_on(project: Path) -> None:
    usage = {"prompt_tokens": 500, "completion_tokens": 1}  # $0.00503 each; 3 points · 12 prompts · 2 orders = 72
    with Loopback(lambda body, n: longer_wins(body, n) | {"usage": usage}, delay=0.01) as server:

        def billed() -> float:
            return (sum(server.answered.values()) + server.preflights) * 0.00503

        first = tilt(project, server, POINTS, "--max-cost", "0.25")
        assert first.returncode == 3, first.stdout + first.stderr
        assert 0.15 < billed() <= 0.25
        (line, *_) = re.findall(r"^  judge.*  (max_cost: .*)$", first.stdout, re.MULTILINE)
        assert re.fullmatch(
            r"max_cost: \$0\.\d{4} of \$0\.2500 is spent by all judges of runs named 'study' and the next "
            r"request may cost \$0\.\d{4}; every answer so far is recorded: raise this limit and run again, and it "
            r"goes on from here",
            line,
        )
        last = tilt(project, server, POINTS, "max_cost=1")
        assert last.returncode == 0, last.stdout + last.stderr
        assert len(server.answered) == 3 * 12 * 2
        assert server.bought_twice == 0
        manifests = [json.loads(path.read_text()) for path in project.glob("store/objects/*/*/manifest.json")]
        costs = [manifest["cost"] for manifest in manifests if manifest["stage"] == "judge"]
        assert costs == [pytest.approx(12 * 2 * 0.00503)] * 3


KEY = "sk-planted-77c1d0e94ab2"


@pytest.mark.parametrize(("case", "tracking"), [("refused", "none"), ("odd", "wandb")])
def test_a_key_is_in_no_file_log_tracker_or_process_list(project: Path, monkeypatch, case: str, tracking: str) -> None:
    """The server echoes the key in its errors: for the whole run (`refused`), or for every other item and in what it
    answers to the rest (`odd`)."""
    monkeypatch.setenv("PLANTED", KEY)
    monkeypatch.setenv("WANDB_SILENT", "true")

    def respond(body: dict[str, Any], n: int) -> Any:
        if case == "refused":
            return Fault("status", 401, body={"error": {"message": f"Incorrect API key provided: {KEY}"}})
        if not is_preflight(body) and "p01" in str(body["messages"]):
            return Fault("status", 400, body={"error": {"message": f"bad header: Bearer {KEY}"}})
        return longer_wins(body, n) | {"echo": f"Bearer {KEY}"}

    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(process.read_bytes())
                except OSError:
                    continue
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with Loopback(respond, delay=0.05) as server:
            done = tilt(project, server, "words=2", "judge.api_key_env=PLANTED", f"tracking={tracking}")
            assert any(f"Bearer {KEY}" in headers.values() for headers in server.headers)  # it was used
    finally:
        over.set()
        watcher.join()
    assert done.returncode == (2 if case == "refused" else 0), done.stdout + done.stderr
    files = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    tracked = [text for path, text in files.items() if path.suffix == ".wandb"]
    assert any(MODEL.encode() in text for text in tracked) == (tracking == "wandb")  # it holds the configuration
    names = {path.name for path in files}
    assert {"log.txt", "failure.json" if case == "refused" else "manifest.json"} <= names, sorted(names)
    assert any(b"config-name" in line for line in seen)  # the run was watched
    assert b"[key]" in done.stdout.encode() + b"".join(files.values())  # what was echoed was taken out, not lost
    everything = {
        "stdout": done.stdout.encode(),
        "stderr": done.stderr.encode(),
        "processes": b"\n".join(seen),
        **files,
    }
    assert [str(place) for place, text in everything.items() if KEY.encode() in text] == []
