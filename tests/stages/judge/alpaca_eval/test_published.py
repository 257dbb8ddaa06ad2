"""The command that recomputes what AlpacaEval published: its table says what the issue of this room demands."""

import os
import re
import subprocess
import sys

import pytest

ALPACA = os.environ.get("TILT_ALPACA_DATA", "")
pytestmark = [
    pytest.mark.assets,  # half a minute
    pytest.mark.skipif(not ALPACA, reason="TILT_ALPACA_DATA is not set: AlpacaEval's verdicts are not here"),
]


def test_one_command_prints_every_published_figure_beside_ours() -> None:
    command = [sys.executable, "-m", "stages.judge.alpaca_eval.published", ALPACA]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rows = [line.split() for line in done.stdout.splitlines()[1:11]]
    assert len(rows) == len({row[0] for row in rows}) == 10
    for name, _, win, _, error, _, at_published, _, cross_validated, _, _, _, times in rows:
        assert abs(float(win)) <= 1e-6
        assert abs(float(error)) <= 1e-6
        assert abs(float(at_published)) <= (0.15 if name == "NullModel" else 0.02)
        assert abs(float(cross_validated)) <= 0.2
        assert 1.8 < float(times) < 7  # AlpacaEval's error bars leave out what the fit does not know
    assert "7,226 stored verdicts" in done.stdout
    assert float(re.findall(r"largest difference (\S+)", done.stdout)[0]) <= 1e-6
    assert "the same to the last bit" in done.stdout
    assert "(-0.51: two rows are missing" in done.stdout
    assert float(re.findall(r"BCa: (\S+) s", done.stdout)[0]) < 60
    assert re.search(
        r"two judges on alpaca-7b, 805 items: raw agreement 98\.6 % .*κ 0\.73 \[0\.\d\d, 0\.\d\d\]", done.stdout
    )
