"""Processes that judge and can be killed: forked from one that has imported everything, so a start takes no seconds.

As a script it is that process: a line of JSON on stdin starts a child, whose id and exit status come back as lines.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Nursery:
    """Starts children; use as a context manager. Each child runs `function(**arguments)` of this module."""

    def __enter__(self) -> "Nursery":
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._line() == "ready"
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)

    def start(self, function: str, **arguments: Any) -> int:
        """Process id of a new child."""
        self._send({"function": function, "arguments": arguments})
        return int(self._line())

    def wait(self, pid: int) -> int:
        """Exit status of a child: 0, a number, or minus the signal that killed it."""
        self._send({"wait": pid})
        return int(self._line())

    def kill(self, pid: int) -> int:
        os.kill(pid, signal.SIGKILL)  # a child that has ended is there until it is waited for
        return self.wait(pid)

    def _send(self, what: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what) + "\n")

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


def judge(base_url: str, folder: str, out: str) -> None:
    from judging import api_judge, quick

    from stages.judge.judge import Judge
    from stages.runtime import Runtime

    Path(out).mkdir(parents=True)
    runtime = Runtime()
    runtime.requests = Path(folder) / "requests"  # type: ignore[attr-defined]
    Judge(
        generations=Path(folder) / "candidate",
        reference_generations=Path(folder) / "reference",
        prompts=Path(folder) / "prompts",
        judges={"main": api_judge(base_url, runtime=quick(concurrency=6, timeout=0.25, account="kills"))},
        canary=0,
        runtime=runtime,
    ).run(Path(out))


def fetch(base_url: str, folder: str, n: int) -> None:
    from test_client import client, nothing, requests

    client(base_url, Path(folder), concurrency=4).fetch(requests(base_url, n), nothing)


def hold(folder: str, account: str, dollars: float) -> None:
    from stages.servers.ledger import Ledger

    Ledger(Path(folder), account, 1.0).hold("a", dollars)
    time.sleep(60)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    import judging  # noqa: F401
    import test_client  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        elif pid := os.fork():
            print(pid, flush=True)
        else:
            status = 1
            try:
                os.dup2(2, 1)
                globals()[asked["function"]](**asked["arguments"])
                status = 0
            finally:
                os._exit(status)


if __name__ == "__main__":
    main()
