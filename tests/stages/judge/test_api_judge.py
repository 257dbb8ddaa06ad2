"""The judge over the wire as the stage calls it."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.errors import BadInput
from stages.judge.verdicts.pair_judge import Session
from stages.judge.verdicts.pairs import Pair
from stages.records import Prompt
from tests.stages.judge.judging import api_judge, longer_wins
from tests.stages.servers.loopback import Loopback

PAIR = Pair(Prompt(id="p", part="test", text="Why?", opening="So"), "Why?", 0, " it is long", " no", "vas", "base")


def test_a_pair_becomes_a_verdict_in_each_order(tmp_path: Path) -> None:
    with Loopback(longer_wins) as server:
        found = api_judge(server.base_url).decide([PAIR], "both", Session(tmp_path))
    assert [v.preference for v in found] == pytest.approx([1.9, 1.9])
    # What the judge reads is the prompt's opening and the response: "So it is long", "So no".
    assert {(v.candidate_chars, v.reference_chars) for v in found} == {(13, 5)}
    assert {(v.judge, v.model, v.cost) for v in found} == {("loop", "judge-2026-01-01", 1030e-6)}


def test_its_fields_are_looked_at_before_anything_is_sent(tmp_path: Path) -> None:
    with Loopback(longer_wins) as server:
        with pytest.raises(BadInput, match="asks: 0 is not a positive number"):
            api_judge(server.base_url, asks=0).decide([PAIR], "both", Session(tmp_path))
        assert not server.arrivals


def test_naming_it_in_a_configuration_loads_nothing_that_speaks_to_a_network() -> None:
    code = "import sys, stages.judge.api_judge; print(sorted({'openai', 'httpx2', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
