"""What a run shows while it runs: how far each stage is, which were reused, how many are left."""

import time
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from pipeline.graph import Node

FEW = 60
"""Stages up to which each one that is reused has a line of its own."""


class View(Protocol):
    """What the scheduler tells of."""

    def reused(self, node: Node) -> None: ...
    def started(self, node: Node, threads: int) -> None: ...
    def progressed(self, node: Node, done: float, total: float, note: str) -> None: ...
    def waiting(self, node: Node) -> None: ...
    def finished(self, node: Node, metrics: dict[str, Any], seconds: float) -> None: ...
    def overtaken(self, node: Node) -> None: ...
    def retried(self, node: Node, message: str, pause: float) -> None: ...
    def failed(self, node: Node) -> None: ...
    def skipped(self, node: Node, because: Node) -> None: ...


def title(node: Node) -> str:
    """`decode (vas beta=4) 2/8`: the stage, the words that the labels of all its points share, and its shard."""
    words = node.points[0].label.split()
    for point in node.points[1:]:
        if not words:
            break
        words = [word for word in words if word in point.label.split()]
    return (
        node.name
        + (f" ({' '.join(words)})" if words else "")
        + (f" {node.shard[0] + 1}/{node.shard[1]}" if node.shard else "")
    )


class Terminal:
    """Live bars on a terminal; plain lines where the output goes to a file. A context manager."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.counts = {"reused": 0, "done": 0, "failed": 0, "skipped": 0}
        self._began = time.monotonic()
        self._bars = Progress(
            TextColumn("  [bold]{task.description:<34}"),
            BarColumn(24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Terminal":
        if self.console.is_terminal:
            self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.console.is_terminal:
            self._live.__exit__(*exception)
        if self.total > FEW and self.counts["reused"]:
            self._line("●", "blue", f"{self.counts['reused']:,} of {self.total:,} stages", "reused")

    def _render(self) -> Group:
        left = self.total - sum(self.counts.values()) - len(self._tasks)
        counts = " · ".join(f"{n} {name}" for name, n in self.counts.items() if n)
        line = f"{self.total} stages: {counts + ' · ' if counts else ''}{len(self._tasks)} running · {left} to go"
        return Group(Text(f"{line} · {time.monotonic() - self._began:.0f} s", style="cyan"), self._bars)

    def _line(self, mark: str, style: str, text: str, more: str = "") -> None:
        line = Text(f"{mark} ", style=style) + Text(text) + Text(f"  {more}" if more else "", style="dim")
        self.console.print(line, soft_wrap=True)

    def reused(self, node: Node) -> None:
        self.counts["reused"] += 1
        if self.total <= FEW:
            self._line("●", "blue", title(node), "reused")

    def waiting(self, node: Node) -> None:
        self._line("…", "yellow", title(node), "is being run by another process; waiting for it")

    def started(self, node: Node, threads: int) -> None:
        self._tasks[node.key] = self._bars.add_task(title(node), total=None, note="")
        if not self.console.is_terminal:
            self._line("○", "cyan", title(node), "started")

    def progressed(self, node: Node, done: float, total: float, note: str) -> None:
        self._bars.update(self._tasks[node.key], completed=done, total=total, note=note)

    def finished(self, node: Node, metrics: dict[str, Any], seconds: float) -> None:
        self._drop(node)
        self.counts["done"] += 1
        figures = " · ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:4])
        self._line("✓", "green", title(node), f"{seconds:.1f} s" + (f" · {figures}" if figures else ""))

    def overtaken(self, node: Node) -> None:
        self._drop(node)
        self.counts["reused"] += 1
        self._line("●", "blue", title(node), "another process was faster")

    def retried(self, node: Node, message: str, pause: float) -> None:
        self._drop(node)
        self._line("↻", "yellow", title(node), f"{message}; trying again in {pause:.0f} s")

    def failed(self, node: Node) -> None:
        self._drop(node)
        self.counts["failed"] += 1
        self._line("✗", "red", title(node), "failed")

    def skipped(self, node: Node, because: Node) -> None:
        self.counts["skipped"] += 1
        self._line("–", "yellow", title(node), f"skipped: {title(because)} failed")

    def _drop(self, node: Node) -> None:
        task = self._tasks.pop(node.key, None)
        if task is not None:
            self._bars.remove_task(task)
