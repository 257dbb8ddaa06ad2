"""Model cards: what a trained model is, on which data, by which configuration, and what was measured."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from stages.records import Labelled


def model_card(title: str, about: str, data: Sequence[str], stage: Any, metrics: Mapping[str, float]) -> str:
    """Markdown. Names no place on this machine."""
    configured = [f"{f.name}: {_shown(getattr(stage, f.name))}" for f in fields(stage) if f.name != "runtime"]
    measured = [f"{name}: {value:.4g}" for name, value in metrics.items()]
    lines = [f"# {title}", "", about, ""]
    for heading, points in (("Data", data), ("Configuration", configured), ("Measured", measured)):
        lines += [f"## {heading}", "", *(f"- {point}" for point in points), ""]
    return "\n".join(lines)


def table(path: Path, rows: str) -> str:
    """A table that was read, by its content, and what was taken from it.

    >>> import tempfile; path = Path(tempfile.mkdtemp()) / "labels.parquet"; _ = path.write_bytes(b"")
    >>> table(path, "3 rollouts")
    '3 rollouts, from `labels.parquet` (sha256 e3b0c44298fc1c14…)'
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{rows}, from `{path.name}` (sha256 {digest[:16]}…)"


def rollouts_table(labels: Path, rollouts: Sequence[Labelled], held: int) -> str:
    """Labelled rollouts that were learnt from; all rollouts of `held` of their prompts only measured."""
    parts = ", ".join(sorted({f"`{r.part}`" for r in rollouts}))
    asked = len({r.prompt_id for r in rollouts})
    rows = f"{len(rollouts)} labelled rollouts to {asked} prompts of part {parts}"
    return table(Path(labels) / "labels.parquet", f"{rows}, those to {held} of the prompts only measure")


def _shown(value: Any) -> str:
    """A value as the card shows it: of a path only its last name, of an object its class and fields."""
    if isinstance(value, Path) or (isinstance(value, str) and "/" in value):
        return Path(value).name
    if is_dataclass(value):
        inner = ", ".join(f"{f.name}={_shown(getattr(value, f.name))}" for f in fields(value))
        return f"{type(value).__name__}({inner})"
    return str(value)
