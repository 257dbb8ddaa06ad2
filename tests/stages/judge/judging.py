"""Two methods' payload folders, judges without waiting, and a rule by which a loopback judge decides."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages import records
from stages.judge.api_judge import ApiJudge
from stages.judge.judge import Judge
from stages.records import Generation, Prompt
from stages.runtime import Runtime
from tests.stages.servers.loopback import MODEL, completion
from tests.stages.servers.sending import quick

PRICES = {"as_of": "2026-01", "models": {MODEL: {"input": 10.0, "output": 30.0, "batch": 0.5}}}


def generation(prompt_id: str, text: str, method: str, sample: int = 0, part: str = "test") -> Generation:
    return Generation(
        prompt_id=prompt_id, sample=sample, token_ids=[1], text=text, logprob=0.0, finished=True, part=part,
        method=method, settings="{}", base_logprob=0.0, kl=0.0, kl_kind="none", tokens=1, flops=1.0, seconds=1.0,
    )  # fmt: skip


def write_methods(
    folder: Path,
    candidate: Sequence[str],
    reference: Sequence[str],
    instructions: Sequence[str] | None = None,
) -> dict[str, Path]:
    """Payloads of `prompts` and of two methods that answer them; ids are p0000, p0001, …"""
    instructions = instructions or [f"Instruction {i}" for i in range(len(candidate))]
    prompts = [Prompt(id=f"p{i:04}", part="test", text=text) for i, text in enumerate(instructions)]
    records.write(folder / "prompts" / "prompts.parquet", Prompt, prompts)
    for name, texts in (("candidate", candidate), ("reference", reference)):
        rows = [generation(f"p{i:04}", text, name) for i, text in enumerate(texts)]
        records.write(folder / name / "generations.parquet", Generation, rows)
    return {
        "generations": folder / "candidate",
        "reference_generations": folder / "reference",
        "prompts": folder / "prompts",
    }


def api_judge(base_url: str, /, **changes: Any) -> ApiJudge:
    given = {
        "name": "loop",
        "model": MODEL,
        "base_url": base_url,
        "mode": "logprob",
        "template": "hardened",
        "prices": PRICES,
        "runtime": quick(),
    }
    return ApiJudge(**(given | changes))


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """(first, second) output of a hardened prompt, decoded as a careful judge would: between the fences."""
    user = body["messages"][-1]["content"]
    fence = re.match(r"<(\w+) instruction>", user)
    assert fence, user[:100]
    blocks = re.findall(rf'^<{fence[1]} answer "\w+">\n(.*)\n</{fence[1]}>$', user, re.M)
    assert len(blocks) == 2, user
    return json.loads(blocks[0]), json.loads(blocks[1])


def longer_wins(body: dict[str, Any], n: int) -> dict[str, Any]:
    """A judge that prefers the longer output, with probability 0.9; one token with log-probabilities."""
    first, second = shown(body)
    m = 0.5 if len(first) == len(second) else 0.9 if len(first) > len(second) else 0.1
    return completion("m" if m > 0.5 else "M", logprobs={"m": math.log(m), "M": math.log(1 - m), "The": -9.0})


@dataclass
class Length:
    """Long answers are good."""

    def score(self, prompts: Any, responses: Any) -> np.ndarray:
        return np.array([float(len(r)) for r in responses])


@dataclass
class Warm:
    """Kind words make a review good."""

    def score(self, prompts: Any, responses: Any) -> np.ndarray:
        return np.array([float(sum(w in r for w in ("superb", "warm", "grace", "wonder"))) for r in responses])


def judge_all(base_url: str, folder: str, out: str) -> None:
    """Run by a child: judges the two methods in `folder`."""
    Path(out).mkdir(parents=True)
    runtime = Runtime()
    runtime.requests = Path(folder) / "requests"
    Judge(
        generations=Path(folder) / "candidate",
        reference_generations=Path(folder) / "reference",
        prompts=Path(folder) / "prompts",
        judges={"main": api_judge(base_url, runtime=quick(concurrency=6, timeout=0.25, account="kills"))},
        canary=0,
        runtime=runtime,
    ).run(Path(out))
