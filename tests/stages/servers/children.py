"""Processes that a test can kill. They are forked from one that has imported everything, so a start takes no seconds.

As a script this file is that process: a line of JSON on stdin starts a child, whose id and exit status come back as
lines. What children can run are functions of the modules that the nursery is given.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Nursery:
    """Starts children; use as a context manager. Each child runs `function(**arguments)` of one of the modules."""

    def __init__(self, *modules: str) -> None:
        self.modules = modules

    def __enter__(self) -> "Nursery":
        self.process = subprocess.Popen(
            [sys.executable, __file__, *self.modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._line() == "ready"
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)

    def start(self, function: Callable[..., None], **arguments: Any) -> int:
        """Process id of a new child that runs a function of the nursery's modules."""
        self._send({"module": function.__module__, "function": function.__name__, "arguments": arguments})
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


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[3]))
    modules = {name: importlib.import_module(name) for name in sys.argv[1:]}

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
                getattr(modules[asked["module"]], asked["function"])(**asked["arguments"])
                status = 0
            finally:
                os._exit(status)


if __name__ == "__main__":
    main()
