"""Tests of this folder talk to servers on 127.0.0.1, with no key of yours; `run_stage` judges given payloads."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import records
from stages.judge.judge import Judge
from stages.records import Verdict
from stages.runtime import Runtime

sys.path.insert(0, str(Path(__file__).parents[3]))  # for tests.stages.servers.loopback and its neighbours


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def run_stage(tmp_path: Path) -> Callable[..., tuple[list[Any], dict[str, float]]]:
    """Runs the stage on given payloads; (verdicts, metrics). Calls share the recorded answers alone."""
    runs = iter(range(100))

    def run(payloads: dict[str, Path], judges: dict[str, Any], **fields: Any) -> tuple[list[Any], dict[str, float]]:
        out = tmp_path / "runs" / str(next(runs))
        out.mkdir(parents=True)
        metrics: dict[str, float] = {}
        runtime = Runtime(metrics=metrics.update)
        runtime.requests = tmp_path / "requests"
        given: dict[str, Any] = {"canary": 0, "runtime": runtime, **payloads, "judges": judges, **fields}
        Judge(**given).run(out)
        return records.read(out / "verdicts.parquet", Verdict), metrics

    return run
