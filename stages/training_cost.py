"""What it took to train a model. A stage that trains one writes `training.json` beside it.

`decode` collects these files for the models that a method uses, and the comparison shows the sum: what making the
method cost, beside what a response costs.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

FILE = "training.json"
METHOD_FILE = "trained.json"
"""Beside the responses of a method: a list of the costs of its models, without π₀."""


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Of one model, over all processes. What π₀ and the reward models cost is left out: every method needs them."""

    model: str
    """What was trained: `Value model`, `DPO policy`."""
    train_flops: float = 0.0
    """Forward and backward passes."""
    train_tokens: float = 0.0
    """Tokens of these passes. A frozen trunk reads each token once, a trained one once an epoch."""
    rollout_flops: float = 0.0
    """Of drawing the responses that it learnt from: PPO's own, or rollouts, which other models may have used too."""
    rollout_tokens: float = 0.0
    """Tokens that were forwarded to draw them."""


FIGURES = [f.name for f in fields(TrainingCost) if f.name != "model"]


def write_cost(out: Path, model: str, metrics: Mapping[str, float]) -> None:
    """Writes the cost of the model in `out`. `metrics` are the stage's own; a figure that is not among them is 0."""
    cost = TrainingCost(model=model, **{name: float(metrics.get(name, 0.0)) for name in FIGURES})
    (Path(out) / FILE).write_text(json.dumps(asdict(cost), indent=1) + "\n", encoding="utf-8")


def write_costs(out: Path, costs: Iterable[TrainingCost]) -> None:
    """Writes the costs of a method's models beside its responses in `out`."""
    text = json.dumps([asdict(cost) for cost in costs], indent=1)
    (Path(out) / METHOD_FILE).write_text(text + "\n", encoding="utf-8")


def read_costs(folder: Path) -> list[TrainingCost]:
    """What `write_costs` wrote. Raises FileNotFoundError."""
    return [TrainingCost(**cost) for cost in json.loads((Path(folder) / METHOD_FILE).read_text(encoding="utf-8"))]


def rollouts_cost(labels: Path) -> dict[str, float]:
    """`rollout_flops` and `rollout_tokens`: what drawing the labelled rollouts in a folder took."""
    table = pq.read_table(Path(labels) / "labels.parquet", columns=["flops", "tokens"]).to_pydict()
    return {"rollout_flops": float(sum(table["flops"])), "rollout_tokens": float(sum(table["tokens"]))}


def inherited(data: Path) -> dict[str, float]:
    """`rollout_flops` and `rollout_tokens` of training data made of rollouts; empty where people wrote the data."""
    cost = _read(data)
    return {} if cost is None else {"rollout_flops": cost.rollout_flops, "rollout_tokens": cost.rollout_tokens}


def training_costs(parts: Iterable[Any], base: Path) -> list[TrainingCost]:
    """The costs of a method's models. Any field of its parts (policy, guide, search) may name a model's folder; the
    folder of π₀, `base`, is left out."""
    folders = {os.path.realpath(base): False}
    for part in parts:
        for text in _texts(part):
            folders.setdefault(os.path.realpath(text), True)
    found = (_read(Path(folder)) for folder, counts in folders.items() if counts)
    return [cost for cost in found if cost is not None]


def total(costs: Iterable[TrainingCost]) -> dict[str, float]:
    """Sums over a method's models. Rollouts that several models learnt from count once: they are known by their figures
    being equal.

    >>> shared = dict(rollout_flops=5.0, rollout_tokens=7.0)
    >>> total([TrainingCost(model="value", train_flops=1.0, **shared), TrainingCost(model="tuned", **shared)])
    {'train_flops': 1.0, 'train_tokens': 0.0, 'rollout_flops': 5.0, 'rollout_tokens': 7.0}
    """
    costs = list(costs)
    drawn = {(cost.rollout_flops, cost.rollout_tokens) for cost in costs}
    return {
        "train_flops": sum((cost.train_flops for cost in costs), 0.0),
        "train_tokens": sum((cost.train_tokens for cost in costs), 0.0),
        "rollout_flops": sum((flops for flops, _ in drawn), 0.0),
        "rollout_tokens": sum((tokens for _, tokens in drawn), 0.0),
    }


def _read(folder: Path) -> TrainingCost | None:
    path = os.path.join(folder, FILE)
    return TrainingCost(**json.loads(Path(path).read_text(encoding="utf-8"))) if os.path.isfile(path) else None


def _texts(part: Any) -> Iterator[str]:
    """Everything in a configured object that could name a folder."""
    if isinstance(part, str | os.PathLike):
        yield os.fspath(part)
    elif is_dataclass(part) and not isinstance(part, type):
        yield from (text for f in fields(part) for text in _texts(getattr(part, f.name)))
    elif isinstance(part, Mapping):
        yield from (text for value in part.values() for text in _texts(value))
    elif isinstance(part, list | tuple):
        yield from (text for value in part for text in _texts(value))
