"""The comparison as a plain-text table, for the terminal and for files."""

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 118


def summary(content: Mapping[str, Any]) -> str:
    """A table of all points, one of each judge, and the verdict: no escape codes, 118 characters wide at most."""
    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, force_terminal=False, color_system=None, highlight=False, markup=False)
    samples = content["points"][0]["samples"]
    part = content["report_part"]
    console.print(f"{content['prompts']} {part} prompts, {samples} responses a point; [95 % intervals] over prompts\n")
    console.print(_points_table(content))
    legend = [
        text
        for text, used in (
            ("* chosen by proxy on " + content["select_part"], any(p["chosen"] for p in content["points"])),
            ("r the reference", content["reference"] is not None),
            ("≤ an upper bound", any(point["kl_kind"] == "bound" for point in content["points"])),
        )
        if used
    ]
    if legend:
        console.print("\n" + "   ".join(legend))
    for judged in content["judges"]:
        console.print(f"\njudge {judged['judge']}, every point against {judged['reference']}\n")
        console.print(_judge_table(content, judged))
        if any(found and found["notes"] for found in judged["points"]):
            console.print("\n† unreliable: the win rate is extreme, or lengths barely overlap")
    console.print("\n" + content["verdict"])
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _points_table(content: Mapping[str, Any]) -> Table:
    judges = content["judges"]
    table = _table("proxy", "gold", *(["win %"] if judges else []), "KL, nats", "tokens/s", "seconds")
    for number, point in enumerate(content["points"]):
        kl = f"≤ {number_text(point['kl']['mean'])}" if point["kl_kind"] == "bound" else interval_text(point["kl"])
        cells = [interval_text(point["proxy"]), interval_text(point["gold"])]
        if judges:  # the first judge's; times make room for it
            found = judges[0]["points"][number]
            cells.append("–" if found is None or found["itself"] else interval_text(found["win_rate"]))
            cells += [kl, *(number_text(point[name]["mean"]) for name in ("tokens_per_second", "seconds"))]
        else:
            cells += [kl, *(interval_text(point[name]) for name in ("tokens_per_second", "seconds"))]
        table.add_row(*_head(content, number), *cells)
    return table


def _judge_table(content: Mapping[str, Any], judged: Mapping[str, Any]) -> Table:
    table = _table("win %", "at equal length", "same winner", "second gains", "failed", "all lost … won")
    for number, found in enumerate(judged["points"]):
        if found is None:
            continue
        if found["itself"]:
            table.add_row(*_head(content, number), "itself", *["–"] * 5)
            continue
        lc = found["length_controlled"]
        shares = [
            "–" if found[name] is None else f"{found[name]:{sign}.0f}{unit}"
            for name, sign, unit in (("swap_consistency", "", " %"), ("position_effect", "+", ""))
        ]
        table.add_row(
            *_head(content, number),
            interval_text(found["win_rate"]),
            "–" if lc is None else ("† " if found["notes"] else "") + interval_text(lc),
            *shares,
            failed_text(found),
            bounds_text(found),
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", no_wrap=True, max_width=2)
    table.add_column("method", no_wrap=True, max_width=12)
    table.add_column("settings", max_width=18)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _head(content: Mapping[str, Any], number: int) -> tuple[str, str, str]:
    point = content["points"][number]
    mark = ("*" if point["chosen"] else "") + ("r" if number == content["reference"] else "")
    return mark, point["method"], point["strength"]


def failed_text(found: Mapping[str, Any]) -> str:
    """`2 of 128`: verdicts that failed."""
    return f"{sum(found['failures'].values())} of {found['verdicts']}"


def bounds_text(found: Mapping[str, Any]) -> str:
    """The win rate were all failed verdicts lost … and all won; `–` where none failed."""
    return f"{found['worst']:.1f} … {found['best']:.1f}" if found["failures"] else "–"


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
