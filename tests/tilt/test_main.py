"""`python -m tilt`."""

import subprocess
import sys
from pathlib import Path


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tilt", "rnu"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "did you mean 'run'?" in done.stderr
