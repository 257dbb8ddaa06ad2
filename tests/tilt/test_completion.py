"""Completion in the shell, as bash asks for it: verbs first, then Hydra's groups, keys and values."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def suggested(line: str) -> list[str]:
    """What bash itself would show after `line` and Tab, with the function that `tilt -sc install=bash` prints."""
    script = f"""
eval "$(tilt -sc install=bash)"
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE)
[[ "$COMP_LINE" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
hydra_bash_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tilt pl", ["plan"]),
        ("tilt run method=v", ["method=vas"]),
        ("tilt run method=vas method.be", ["method.beta="]),
        ("tilt plan -m executor=", ["executor=inprocess", "executor=local"]),
    ],
)
def test_tab_completes_verbs_groups_and_keys(line: str, expected: list[str]) -> None:
    assert suggested(line) == expected
