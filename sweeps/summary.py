"""The comparison as a plain-text table, for the terminal and for files."""

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sweeps.wording import bounds_text, count_text, failed_text, interval_text, number_text, power_text, trained_sets

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
            ("~ before truncation", any(point["kl_kind"] == "untruncated" for point in content["points"])),
        )
        if used
    ]
    if legend:
        console.print("\n" + "   ".join(legend))
    if any(point["models"] for point in content["points"]):
        console.print("\ntrained beyond the base policy and the rewards\n")
        console.print(_training_table(content))
    for judged in content["judges"]:
        console.print(f"\njudge {judged['judge']}, every point against {judged['reference']}\n")
        console.print(_judge_table(content, judged))
        if any(found and found["notes"] for found in judged["points"]):
            console.print("\n† unreliable: the win rate is extreme, or lengths barely overlap")
    console.print("\n" + content["verdict"])
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _points_table(content: Mapping[str, Any]) -> Table:
    judges = content["judges"]
    wordy = not judges and any(len(line) > 12 for p in content["points"] for line in p["strength"].split(", "))
    columns = ("proxy", "gold", *(["win %"] if judges else []), "KL, nats", "tokens/s", "seconds")
    table = _table(*columns, settings=22 if wordy else 18)
    for number, point in enumerate(content["points"]):
        kl = f"≤ {number_text(point['kl']['mean'])}" if point["kl_kind"] == "bound" else interval_text(point["kl"])
        kl = f"~ {kl}" if point["kl_kind"] == "untruncated" else kl
        cells = [interval_text(point["proxy"]), interval_text(point["gold"])]
        speeds = [point[name] for name in ("tokens_per_second", "seconds")]
        if judges:  # the first judge's
            found = judges[0]["points"][number]
            cells.append("–" if found is None or found["itself"] else interval_text(found["win_rate"]))
        short = bool(judges) or wordy  # the intervals of times make room
        cells += [kl, *(number_text(speed["mean"]) if short else interval_text(speed) for speed in speeds)]
        table.add_row(*_head(content, number), *cells)
    return table


def _training_table(content: Mapping[str, Any]) -> Table:
    """One row a set of models that a method needs: what they cost, and which points use them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("models", max_width=30)
    for name in ("training FLOPs", "tokens", "rollout FLOPs", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("for", max_width=34)
    for models, cost, names in trained_sets(content):
        costs = [power_text(cost["train_flops"]), count_text(cost["train_tokens"])]
        costs += [power_text(cost["rollout_flops"]), count_text(cost["rollout_tokens"])]
        table.add_row(models, *costs, ", ".join(names))
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


def _table(*names: str, settings: int = 18) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", no_wrap=True, max_width=2)
    table.add_column("method", no_wrap=True, max_width=12)
    table.add_column("settings", min_width=settings if settings > 18 else None, max_width=settings)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _head(content: Mapping[str, Any], number: int) -> tuple[str, str, str]:
    point = content["points"][number]
    mark = ("*" if point["chosen"] else "") + ("r" if number == content["reference"] else "")
    return mark, point["method"], point["strength"].replace(", ", ",\n")
