"""One execution of one stage, inside the process that runs it.

The supervisor hands over a `Spec` and receives events; what the stage wrote lies in the staging folder, its manifest
last. Nothing here publishes: that is the supervisor's, which holds the lease.
"""

import datetime
import importlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import no_space
from pipeline.store import Manifest, write_manifest
from pipeline.tracking import Tracking, tracker

Send = Callable[[tuple[Any, ...]], None]


class Stage(Protocol):
    """What the runner needs of a stage: its fields are its configuration, `run` writes the payload into `out`.

    A `runtime` field, where there is one, is handed the execution's handles (progress, metrics, loggers, …).
    """

    def run(self, out: Path) -> None: ...


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


class NotAField(Exception):
    """A configured name that the class it configures does not take: (path, problem)."""


def build(config: Any, path: str = "") -> Any:
    """Instantiates `_target_` mappings, innermost first. Raises NotAField where a class refuses a field's name."""
    if isinstance(config, list):
        return [build(value, f"{path}.{i}" if path else str(i)) for i, value in enumerate(config)]
    if not isinstance(config, dict):
        return config
    values = {
        k: build(v, f"{path}.{k}" if path else k) for k, v in config.items() if k not in ("_target_", "resources")
    }
    if "_target_" not in config:
        return values
    module, _, name = config["_target_"].rpartition(".")
    kind = getattr(importlib.import_module(module), name, None)
    if kind is None:
        raise NotAField(f"{path}._target_".lstrip("."), f"{module} has no {name}")
    names = getattr(kind, "__dataclass_fields__", None)
    for given in values if names is not None else ():
        if given not in names:  # type: ignore[operator]
            raise NotAField(f"{path}.{given}".lstrip("."), f"{name} has no such field; it has {', '.join(names)}")  # type: ignore[arg-type]
    return kind(**values)


def perform(spec: Spec, send: Send) -> None:
    """Runs one stage into its staging folder and reports by events:

    `("progress", done, total, note)`, then either `("done", metrics, seconds)` or `("failed", failure)` with
    `failure = {kind, message, field}`; kinds: `input` (a field is at fault), `disk`, `error`.
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    metrics: dict[str, float] = {}
    limit_threads(spec.threads)
    run = tracker(spec.tracking, spec.key, spec.name, spec.config, spec.staging)
    try:
        stage = build(spec.config)
        runtime = getattr(stage, "runtime", None)
        if runtime is not None:
            runtime.progress = _throttled(send)
            runtime.loggers = run.loggers
            runtime.table = run.table
            runtime.lineage = spec.lineage
            runtime.requests = spec.staging.parent.parent / "requests"  # beside `staging` in the store

            def keep(values: Mapping[str, float]) -> None:
                metrics.update({name: float(value) for name, value in values.items()})
                run.metrics(values)

            runtime.metrics = keep
        stage.run(spec.staging / "payload")
        seconds = time.perf_counter() - clock
        write_manifest(
            spec.staging,
            Manifest(
                key=spec.key,
                stage=spec.name,
                preimage=spec.preimage,
                code={m: dict(d) for m, d in spec.code.items()},
                inputs=spec.inputs,
                files={},
                metrics=metrics,
                started=started.isoformat(timespec="seconds"),
                seconds=round(seconds, 3),
                host=socket.gethostname(),
                versions=_versions(),
                commit=spec.commit,
                extra={"threads": spec.threads},
            ),
        )
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


def _failure(error: BaseException) -> dict[str, Any]:
    kept = {"exit_code": error.exit_code} if isinstance(getattr(error, "exit_code", None), int) else {}  # type: ignore[attr-defined]
    lines = str(error).strip().splitlines()
    message = lines[0] if lines else type(error).__name__
    if no_space(error):
        return {"kind": "disk", "field": "", "message": message}
    if isinstance(error, NotAField):
        return {"kind": "input", "field": error.args[0], "message": error.args[1]}
    if isinstance(field_at_fault := getattr(error, "field", None), str) and hasattr(error, "problem"):
        return {"kind": "input", "field": field_at_fault, "message": str(error.problem)} | kept  # type: ignore[attr-defined]
    return {"kind": "error", "field": "", "message": f"{type(error).__name__}: {message}"} | kept


def limit_threads(threads: int) -> None:
    """Threads of torch and BLAS in this process; more in sum than there are cores runs 10-30 times slower."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)


def child(spec: Spec, channel: Any) -> None:
    """Entry point of a worker process: output goes to the stage's log, the process ends with its supervisor."""
    import multiprocessing
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides; it ends its workers by SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

    parent = multiprocessing.parent_process()

    def follow_parent() -> None:
        assert parent is not None
        parent.join()
        os._exit(143)

    threading.Thread(target=follow_parent, daemon=True).start()
    log = os.open(spec.staging / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    perform(spec, channel.send)
    sys.stdout.flush()


def _throttled(send: Send) -> Callable[..., None]:
    last = 0.0

    def progress(done: float, total: float, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 0.2 or done >= total:
            last = now
            send(("progress", done, total, note))

    return progress


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("tiltlab", "torch", "transformers", "pytorch-lightning", "peft", "numpy"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def lineage(nodes: Sequence[Any], seconds: Mapping[str, float], reused: set[str]) -> list[dict[str, Any]]:
    """The graph upstream of a stage as it is handed to it: one mapping a node, in graph order."""
    return [
        {
            "stage": node.name,
            "key": node.key,
            "inputs": list(node.inputs.values()),
            "seconds": seconds.get(node.key, 0.0),
            "reused": node.key in reused,
            "label": node.points[0].label if len(node.points) == 1 else "",
        }
        for node in nodes
    ]


def main(arguments: Sequence[str]) -> int:
    """`python -m pipeline.stage SPEC.json`: a stage in a process of its own; the exit code is its outcome."""
    loaded = json.loads(Path(arguments[0]).read_text())
    tracking = Tracking(**loaded.pop("tracking"))
    spec = Spec(**loaded | {"staging": Path(loaded["staging"]), "tracking": tracking})
    outcome: list[tuple[Any, ...]] = []
    perform(spec, outcome.append)
    if outcome[-1][0] == "done":
        return 0
    print(outcome[-1][1]["message"], file=sys.stderr)
    return 2 if outcome[-1][1]["kind"] == "input" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
