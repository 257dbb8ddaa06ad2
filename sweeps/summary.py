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


def trained_sets(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float], list[str]]]:
    """(models, their cost, the methods or settings that need them), each set of equal cost once."""
    found: dict[tuple[Any, ...], tuple[str, Mapping[str, float], list[int]]] = {}
    for number, point in enumerate(content["points"]):
        if point["models"]:
            models = ", ".join(dict.fromkeys(model["model"] for model in point["models"]))
            found.setdefault((models, *point["training"].values()), (models, point["training"], []))[2].append(number)
    return [(models, cost, users(content, numbers)) for models, cost, numbers in found.values()]


def users(content: Mapping[str, Any], numbers: list[int]) -> list[str]:
    """Methods by name where all their points are meant, else points."""
    points = content["points"]
    whole = {
        method
        for method in (points[number]["method"] for number in numbers)
        if all(number in numbers for number, point in enumerate(points) if point["method"] == method)
    }
    return list(
        dict.fromkeys(
            points[n]["method"] if points[n]["method"] in whole else f"{points[n]['method']} ({points[n]['strength']})"
            for n in numbers
        )
    )


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


def power_text(value: float | None) -> str:
    """`3.2e11`, as people write FLOPs in a terminal; 0 is 0, `–` none.

    >>> [power_text(v) for v in (3.21e11, 0.0, None)]
    ['3.2e11', '0', '–']
    """
    return "–" if value is None else f"{value:.1e}".replace("e+", "e") if value else "0"


def count_text(value: float | None) -> str:
    """`12,345`; `–` for none."""
    return "–" if value is None else f"{value:,.0f}"


def interval_text(estimate: Mapping[str, Any]) -> str:
    """`mean [low, high]`, all with the digits that the mean gets."""
    mean, low, high = estimate["mean"], estimate["low"], estimate["high"]
    if mean is None or low is None or high is None:
        return number_text(mean)
    size = max(abs(mean), abs(high - low))
    digits = 2 if size < 10 else 1 if size < 100 else 0
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
