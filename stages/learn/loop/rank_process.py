"""One of the other processes of a training on several devices, started by `ranks.together`.

    python -m stages.learn.loop.rank_process SPEC.json

It trains its share of the stage that SPEC describes and writes nothing. It ends when its standard input does.
"""

import faulthandler
import json
import os
import signal
import sys
import threading
from pathlib import Path

import torch

from stages.description import rebuilt
from stages.learn.loop.ranks import Group


def main(spec: Path) -> None:
    """One of the other processes: the stage from its configuration, without a place to write to."""
    faulthandler.register(signal.SIGUSR1)
    signal_out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is printed goes to the log
    loaded = json.loads(spec.read_text())
    group = Group(size=loaded["size"], rank=loaded["rank"], port=loaded["port"], signal=signal_out)
    watcher = threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0 if group.finished else 143)), daemon=True)
    watcher.start()  # this process ends with the first one
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    stage = rebuilt(loaded["stage"])
    stage.runtime.group = group
    stage.run(Path(os.devnull))
    watcher.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
