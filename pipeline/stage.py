"""One execution of one stage, inside the process that runs it.

    python -m pipeline.stage SPEC.json      a stage in a process of its own, or one of several that run it together

The supervisor hands over a `Spec` and receives events; what the stage wrote lies in the staging folder, its manifest
last. Nothing here publishes: that is the supervisor's, which holds the lease.
"""

import dataclasses
import datetime
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from pipeline.build import NotAField, build
from pipeline.code import Stamps, changed_since
from pipeline.errors import no_space
from pipeline.keys import Files, changed_files
from pipeline.protocol import Sharded, Stage, exit_code, field_at_fault, handles, retryable
from pipeline.store import Manifest, write_manifest
from pipeline.tracking import Tracking, tracker

Send = Callable[[tuple[Any, ...]], None]


@dataclass
class Spec:
    """Everything a child needs to run one stage."""

    key: str
    name: str
    config: dict[str, Any]
    """With payload paths in place of references."""
    staging: Path
    threads: int
    preimage: dict[str, Any]
    code: Mapping[str, Mapping[str, str]]
    inputs: dict[str, str]
    commit: str
    lineage: list[dict[str, Any]] = field(default_factory=list)
    tracking: Tracking = field(default_factory=Tracking)
    sources: Stamps = field(default_factory=dict)
    """Source files as the key saw them; empty where the code does not count as it stands."""
    files: Files = field(default_factory=dict)
    """Local files that it reads, as the key saw them."""
    shard: tuple[int, int] | None = None
    """(index, count) where only a shard is to be computed."""
    parts: list[str] = field(default_factory=list)
    """Payloads of the shards where they are to be merged."""
    parts_seconds: float = 0.0
    """What the shards took, in sum."""
    processes: int = 1
    """That run it together; each is told which one it is."""
    timeout: float | None = None
    attempt: int = 1

    def save(self) -> Path:
        """Into the staging folder, for a process that starts from nothing; returns the file."""
        path = self.staging / "spec.json"
        path.write_text(json.dumps(dataclasses.asdict(self) | {"staging": str(self.staging)}))
        return path

    @classmethod
    def load(cls, path: Path) -> "Spec":
        loaded = json.loads(path.read_text())
        loaded |= {"staging": Path(loaded["staging"]), "tracking": Tracking(**loaded["tracking"])}
        return cls(**loaded)


def perform(spec: Spec, send: Send, rank: int = 0) -> None:
    """Runs one stage into its staging folder and reports by events:

    `("progress", done, total, note)`, then either `("done", metrics, seconds)` or `("failed", failure)` with
    `failure = {kind, message, field, retryable}`; kinds: `input` (a field is at fault), `disk`, `error`. `seconds` of a
    merge are its shards' too.

    `rank` says which of `spec.processes` this is; the stage's `runtime` is told both. Ranks above 0 write beside the
    payload, report no progress, track nothing and leave no manifest.
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    metrics: dict[str, float] = {}
    limit_threads(spec.threads)
    out = spec.staging / ("payload" if rank == 0 else f"rank{rank}")
    out.mkdir(exist_ok=True)
    run = tracker(spec.tracking if rank == 0 else Tracking(), spec.key, spec.name, spec.config, spec.staging)
    try:
        stage: Stage = build(spec.config)
        if changed := [*changed_since(spec.code, spec.sources), *changed_files(spec.files)]:
            raise SourceChanged(changed[0])
        if (runtime := handles(stage)) is not None:
            runtime.rank, runtime.world = rank, spec.processes
            runtime.progress = _throttled(send) if rank == 0 else _unheard
            runtime.loggers = run.loggers
            runtime.table = run.table
            runtime.lineage = spec.lineage
            runtime.checkpoints = spec.staging / "checkpoints"
            runtime.checkpoints.mkdir(exist_ok=True)
            runtime.requests = spec.staging.parent.parent / "requests"  # beside `staging` in the store

            def keep(values: Mapping[str, float]) -> None:
                metrics.update({name: float(value) for name, value in values.items()})
                run.metrics(values)

            runtime.metrics = keep
        if spec.parts:
            cast(Sharded, stage).merge([Path(part) for part in spec.parts], out)
        elif spec.shard:
            cast(Sharded, stage).run_shard(out, *spec.shard)
        else:
            stage.run(out)
        seconds = spec.parts_seconds + time.perf_counter() - clock
        if rank == 0:
            if changed := changed_files(spec.files):  # while it read them
                raise SourceChanged(changed[0])
            write_manifest(spec.staging, _manifest(spec, metrics, started.isoformat(timespec="seconds"), seconds))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        with suppress(OSError):
            traceback.print_exc(file=sys.stderr)
        send(("failed", _failure(error)))
    else:
        send(("done", metrics, seconds))
    finally:
        run.finish()


class SourceChanged(Exception):
    """A source or a file is no longer what the stage's key was made of."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was edited after this run was planned; run again")


def _manifest(spec: Spec, metrics: dict[str, float], started: str, seconds: float) -> Manifest:
    shard = {"shard": list(spec.shard)} if spec.shard else {"shards": len(spec.parts)} if spec.parts else {}
    return Manifest(
        key=spec.key,
        stage=spec.name,
        preimage=spec.preimage,
        code={module: dict(names) for module, names in spec.code.items()},
        inputs=spec.inputs,
        files={},
        metrics=metrics,
        started=started,
        seconds=round(seconds, 3),
        host=socket.gethostname(),
        versions=_versions(),
        commit=spec.commit,
        cost=metrics.get("dollars", 0.0),
        extra={"threads": spec.threads, "attempt": spec.attempt} | shard,
    )


def _failure(error: BaseException) -> dict[str, Any]:
    lines = str(error).strip().splitlines()
    message = lines[0] if lines else type(error).__name__
    told: dict[str, Any] = {"kind": "error", "field": "", "message": message, "retryable": False}
    if (code := exit_code(error)) is not None:
        told["exit_code"] = code
    if no_space(error):
        return told | {"kind": "disk"}
    if isinstance(error, NotAField):
        return told | {"kind": "input", "field": error.args[0], "message": error.args[1]}
    if isinstance(error, SourceChanged):
        return told
    if at_fault := field_at_fault(error):
        return told | {"kind": "input", "field": at_fault[0], "message": at_fault[1]}
    return told | {"message": f"{type(error).__name__}: {message}", "retryable": retryable(error)}


def limit_threads(threads: int) -> None:
    """Threads of torch and BLAS in this process; more in sum than there are cores runs 10-30 times slower."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)


def _throttled(send: Send) -> Callable[..., None]:
    last = 0.0

    def progress(done: float, total: float, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 0.2 or done >= total:
            last = now
            send(("progress", done, total, note))

    return progress


def _unheard(done: float, total: float, note: str = "") -> None:
    """Progress of a process that is not the first."""


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("tiltlab", "torch", "transformers", "pytorch-lightning", "peft", "numpy"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def rank_of_this_process() -> int:
    """The rank that who started this process gave to it (the runner, torchrun, Slurm); 0 where nobody did."""
    for name in ("RANK", "SLURM_PROCID"):  # Slurm's last: processes that are started in its job inherit the first one's
        if name in os.environ:
            return int(os.environ[name])
    return 0


def main(arguments: Sequence[str]) -> int:
    """`python -m pipeline.stage SPEC.json [PIPE]`: a stage in a process of its own; the exit code is its outcome.

    PIPE is the number of an inherited descriptor, one end of a connection to the runner. Events are sent through it.
    When the runner closes it, this process leaves if it has said its last word, and else ends with all it started.
    """
    faulthandler.register(signal.SIGUSR1)  # where it stands, for the log
    spec, rank = Spec.load(Path(arguments[0])), rank_of_this_process()
    channel = Connection(int(arguments[1])) if len(arguments) > 1 else None
    last: list[tuple[Any, ...]] = []
    ended = threading.Event()

    def send(event: tuple[Any, ...]) -> None:
        last[:] = [event]
        if event[0] != "progress":
            ended.set()
        if channel:
            channel.send(event)

    def follow_runner() -> None:
        assert channel is not None
        with suppress(EOFError, OSError):
            channel.recv_bytes()  # nothing is ever sent: it returns when the other end is closed
        if not ended.is_set():
            os.killpg(0, signal.SIGKILL)

    following = threading.Thread(target=follow_runner, daemon=True)
    if channel:
        following.start()
    perform(spec, send, rank)
    if channel:
        following.join()
    if last[-1][0] == "done":
        return 0
    told = last[-1][1]
    return told.get("exit_code", 2 if told["kind"] == "input" else 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
