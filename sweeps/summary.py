"""The comparison as a plain-text table, for the terminal and for files."""

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 118


def summary(content: Mapping[str, Any]) -> str:
    """A table of all points and the verdict: no escape codes, 118 characters wide at most."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", no_wrap=True, max_width=2)
    table.add_column("method", no_wrap=True, max_width=12)
    table.add_column("settings", max_width=18)
    for name in ("proxy", "gold", "KL, nats", "tokens/s", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    bound = False
    for number, point in enumerate(content["points"]):
        is_bound = point["kl_kind"] == "bound"
        bound |= is_bound
        mark = ("*" if point["chosen"] else "") + ("r" if number == content["reference"] else "")
        kl = f"≤ {number_text(point['kl']['mean'])}" if is_bound else interval_text(point["kl"])
        others = [interval_text(point[name]) for name in ("tokens_per_second", "seconds")]
        rewards = [interval_text(point[name]) for name in ("proxy", "gold")]
        table.add_row(mark, point["method"], point["strength"], *rewards, kl, *others)
    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, force_terminal=False, color_system=None, highlight=False, markup=False)
    samples = content["points"][0]["samples"]
    part = content["report_part"]
    console.print(f"{content['prompts']} {part} prompts, {samples} responses a point; [95 % intervals] over prompts\n")
    console.print(table)
    legend = [
        text
        for text, used in (
            ("* chosen by proxy on " + content["select_part"], any(p["chosen"] for p in content["points"])),
            ("r the reference", content["reference"] is not None),
            ("≤ an upper bound", bound),
        )
        if used
    ]
    if legend:
        console.print("\n" + "   ".join(legend))
    console.print("\n" + content["verdict"])
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def number_text(value: float | None) -> str:
    """Three significant digits, as people write them; `–` for none.

    >>> [number_text(v) for v in (0.1234, 12.345, 123.45, 4567.8, -0.5, None)]
    ['0.123', '12.3', '123', '4,568', '-0.500', '–']
    """
    if value is None:
        return "–"
    size = abs(value)
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:,.{digits}f}"


def interval_text(estimate: Mapping[str, Any]) -> str:
    """`mean [low, high]`, all with the digits that the mean gets."""
    mean, low, high = estimate["mean"], estimate["low"], estimate["high"]
    if mean is None or low is None or high is None:
        return number_text(mean)
    size = max(abs(mean), abs(high - low))
    digits = 2 if size < 10 else 1 if size < 100 else 0
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
