"""The comparison as a table of plain values, one row for each point: `comparison.csv`, and the table for tracking."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.training_cost import FIGURES, total
from sweeps.figures import Figures
from sweeps.judged_points import JudgedPoints, Judgement
from sweeps.points import Point

COLUMNS = [
    *["method", "settings", "prompts", "samples", "proxy", "proxy_low", "proxy_high", "gold", "gold_low", "gold_high"],
    *["kl", "kl_low", "kl_high", "tokens_per_second", "flops", "seconds"],
    *["kl_kind", "tokens", "train_flops", "train_tokens", "rollout_flops", "rollout_tokens"],
]
"""Columns of every comparison. `samples` counts all responses. `flops` and `tokens` are those of one response,
`seconds` and `tokens_per_second` those of all together. `train_…` is what training the method's own models took, 0
where it has none; `rollout_…` what drawing the responses took that these learnt from; several methods may share it."""
UNKNOWN = dict.fromkeys(FIGURES)
JUDGE_COLUMNS = [
    *["win_rate", "win_rate_low", "win_rate_high", "lc_win_rate", "lc_win_rate_low", "lc_win_rate_high"],
    *["verdicts", "failed", "win_rate_worst", "win_rate_best", "swap_consistency", "position_effect"],
]
"""Columns of every judge, after those. With several judges the judge's name stands before them: `name/win_rate`."""


def columns(judges: Sequence[JudgedPoints]) -> list[str]:
    """The names of all columns."""
    prefixes = [f"{judged.judge}/" if len(judges) > 1 else "" for judged in judges]
    return COLUMNS + [prefix + column for prefix in prefixes for column in JUDGE_COLUMNS]


def rows(points: Sequence[Point], measured: Sequence[Figures], judges: Sequence[JudgedPoints]) -> list[list[Any]]:
    """The values of all columns for each point; None where there is no figure."""
    found = []
    for number, (point, f) in enumerate(zip(points, measured, strict=True)):
        row = [
            point.method, settings_text(point.settings), f.proxy.items, f.samples,
            f.proxy.value, f.proxy.low, f.proxy.high, f.gold.value, f.gold.low, f.gold.high,
            f.kl.value, f.kl.low, f.kl.high, f.tokens_per_second.value, f.flops.value, f.seconds.value,
            point.kl_kind, f.tokens.value, *(UNKNOWN if point.trained is None else total(point.trained)).values(),
        ]  # fmt: skip
        for judged in judges:
            row += _judge_cells(judged.points[number])
        found.append([None if isinstance(value, float) and not math.isfinite(value) else value for value in row])
    return found


def _judge_cells(found: Judgement | None) -> list[Any]:
    if found is None:
        return [None] * len(JUDGE_COLUMNS)
    rate, lc = found.win_rate, found.length_controlled
    return [
        rate.value, rate.low, rate.high, *((lc.value, lc.low, lc.high) if lc else (None, None, None)),
        found.verdicts, sum(found.failures.values()), found.worst, found.best,
        found.swap_consistency, found.position_effect,
    ]  # fmt: skip


def write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def settings_text(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), ensure_ascii=False, default=str)
