"""A whole run over the wire with real verdicts: the 805 published outputs of alpaca-7b against a server that answers
with the log-probabilities GPT-4 gave. The data stay where TILT_ALPACA_DATA points; the reference outputs, which are not
among them, are stood in for by texts of their length.
"""

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stages.judge.judging import api_judge, write_methods
from tests.stages.servers.loopback import Loopback, completion, is_preflight
from tests.stages.servers.sending import quick

DATA = os.environ.get("TILT_ALPACA_DATA", "")
pytestmark = pytest.mark.skipif(
    not DATA, reason="TILT_ALPACA_DATA is not set: it names the folder of AlpacaEval verdicts"
)
MODEL = "alpaca-7b"


def table(name: str) -> list[dict[str, str]]:
    with (Path(DATA) / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def stand_in(index: int, length: int) -> str:
    mark = f"<r{index}>"
    return mark + "." * (length - len(mark))


def test_a_run_over_the_wire_gives_the_published_length_controlled_win_rate(tmp_path: Path, run_stage) -> None:
    from stages.judge.winrate import length_controlled

    items = table("items.csv")
    stored = {int(row["index"]): row for row in table("annotations.csv") if row["model"] == MODEL}
    outputs = {
        row["instruction"]: row["output"]
        for row in json.loads((Path(DATA) / f"model_outputs_{MODEL}.json").read_text())
    }
    published = next(row for row in table("expected.csv") if row["model"] == MODEL)
    # AlpacaEval, too, asks nobody about two identical outputs: their preference is 1.5, nothing is stored.
    same = {i for i, row in stored.items() if not row["lp_m"] and not row["lp_M"]}
    references = [
        outputs[item["instruction"]] if i in same else stand_in(i, int(item["len_1"])) for i, item in enumerate(items)
    ]
    switched_wrong = []

    def respond(body: dict[str, Any], n: int) -> Any:
        if is_preflight(body):
            return completion("m", logprobs={"m": -0.1, "M": -3.0})
        text = body["messages"][-1]["content"]
        found = re.search(r'"m"\n\n```\n<r(\d+)>|"M"\n\n```\n<r(\d+)>', text)
        assert found, text[:300]
        index = int(found[1] or found[2])
        if (found[2] is not None) != (items[index]["switched"] == "1"):
            switched_wrong.append(index)
        row = stored[index]
        found = {token: float(row[name]) for token, name in (("m", "lp_m"), ("M", "lp_M")) if row[name]}
        return completion("m", logprobs=found | {"Model": -12.0})

    payloads = write_methods(
        tmp_path, [outputs[item["instruction"]] for item in items], references, [item["instruction"] for item in items]
    )
    with Loopback(respond) as server:
        judge = api_judge(server.base_url, template="alpaca_eval", temperature=1.0, runtime=quick(concurrency=8))
        verdicts, metrics = run_stage(payloads, {"main": judge}, order="seeded")
    assert len(verdicts) == 805
    assert switched_wrong == []  # the seeded order is AlpacaEval's, instruction by instruction
    assert {i for i, v in enumerate(verdicts) if v.outcome == "identical"} == same
    assert sum(v.outcome == "verdict" for v in verdicts) == 805 - len(same)
    for i, verdict in enumerate(verdicts):
        assert verdict.preference == pytest.approx(float(stored[i]["preference"]), abs=1e-6)
        assert verdict.candidate_chars == int(stored[i]["len_2"])
    assert metrics["win_rate"] == pytest.approx(float(published["win_rate"]), abs=1e-6)
    assert metrics["standard_error"] == pytest.approx(float(published["standard_error"]), abs=1e-6)

    gamed = [{name: float(value) for name, value in row.items() if name != "instruction" and _number(value)}
             for row in table("gamed_baselines_surrogate.csv")]  # fmt: skip
    difficulty = {item["instruction"]: float(item["instruction_difficulty"]) for item in items}
    found = length_controlled(
        np.array([v.preference for v in verdicts]),
        np.array([v.candidate_chars for v in verdicts]),
        np.array([v.reference_chars for v in verdicts]),
        np.array([difficulty[items[i]["instruction"]] for i in range(len(verdicts))]),
        gamed=gamed,
        C=float(published["C_published_fit"]),
    )
    print(f"LC {found.lc_win_rate:.3f}, published {published['lc_published']}")
    assert found.lc_win_rate == pytest.approx(float(published["lc_published"]), abs=0.02)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
