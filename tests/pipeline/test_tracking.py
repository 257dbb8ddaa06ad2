"""W&B: offline first, grouped, and never in the way."""

import json
import socket
import threading
import time
from pathlib import Path

import pytest

from pipeline.tracking import NoRun, Tracking, settled, tracker


@pytest.fixture
def silent_server():
    """A server that accepts and never answers."""
    listening = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                held.append(listening.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    for connection in held:
        connection.close()


@pytest.fixture(autouse=True)
def fresh_service():
    """W&B reads the environment once a process: each test begins with a service of its own."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


def end(run: NoRun) -> None:
    """As a stage's process ends: W&B's service writes out what it still holds."""
    import wandb

    run.finish()
    wandb.teardown()


def test_no_tracking_keeps_nothing(tmp_path: Path) -> None:
    run = tracker(Tracking(folder=str(tmp_path)), "a" * 64, "say", {}, tmp_path / "staging/x")
    assert type(run) is NoRun
    assert not list(tmp_path.iterdir())


def test_a_stage_is_a_run_with_its_job_type_group_and_key(tmp_path: Path) -> None:
    tracking = Tracking("offline", project="toy", group="my sweep", folder=str(tmp_path), finish_seconds=120.0)
    run = tracker(tracking, "a" * 64, "say", {"word": "hi", "runtime": {"my_rows": 3}}, tmp_path / "staging/x")
    run.metrics({"letters": 2.0})
    run.table("words", ["word", "n"], [["hi", 1]])
    assert [type(logger).__name__ for logger in run.loggers()] == ["WandbLogger"]
    end(run)
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert folder.name.endswith("a" * 16)
    record = next(folder.glob("*.wandb")).read_bytes()
    for text in (b"my sweep", b"say", b"letters", b"toy"):
        assert text in record
    assert b"my_rows" not in record  # devices and rows a batch are not settings of an experiment
    assert json.loads(next(folder.rglob("*.table.json")).read_text())["data"] == [["hi", 1]]


def test_a_server_that_is_down_turns_online_into_offline_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    began = time.monotonic()
    assert settled(Tracking(mode="online", folder="x")).mode == "offline"
    assert time.monotonic() - began < 5


def test_a_server_that_never_answers_costs_seconds_and_no_result(
    silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert settled(Tracking(mode="online", folder=str(tmp_path)), seconds=0.2).mode == "offline"
    # and where it stopped answering after that look: the figures are kept on disk
    run = tracker(Tracking(mode="online", folder=str(tmp_path), finish_seconds=120.0), "b" * 64, "say", {}, tmp_path)
    run.metrics({"letters": 2.0})
    end(run)
    assert any(b"letters" in path.read_bytes() for path in tmp_path.rglob("*.wandb"))
