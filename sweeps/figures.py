"""The figures of a point over the prompts of one part, each with its 95 % interval over prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.statistics.interval import Interval
from stages.statistics.means import by_prompt, mean_interval, ratio_interval
from sweeps.points import Point


@dataclass(frozen=True)
class Figures:
    """What the report says about a point, over the prompts of one part."""

    samples: int
    """Responses, all prompts together."""
    proxy: Interval
    gold: Interval
    kl: Interval
    tokens_per_second: Interval
    """Response tokens ÷ wall time."""
    seconds: Interval
    """Wall time of all responses together. The interval says how it would vary with other prompts, as many; nan for a
    single batch."""
    flops: Interval
    """Of one response, all models together."""
    tokens: Interval
    """Read or written by all models for one response."""
    length: Interval
    """Tokens of a response, EOS included."""
    finished: Interval
    """Share of responses that ended by themselves."""
    distinct_2: Interval
    """As in `records.Score`."""
    repetition: Interval
    """As in `records.Score`."""


def figures(point: Point, part: str, *, draws: int, seed: int) -> Figures:
    """A point's figures over the prompts of `part`, each with its 95 % interval over prompts."""
    rows = point.parts[part]
    ids = [s.prompt_id for s in rows]

    def mean(values: Sequence[float]) -> Interval:
        return mean_interval(np.array(list(by_prompt(ids, values).values())), draws=draws, seed=seed)

    counts = _sums(ids, [1.0] * len(rows))  # (B,) samples of each prompt
    seconds, lengths = _sums(ids, [s.seconds for s in rows]), _sums(ids, [float(s.length) for s in rows])
    rate = ratio_interval(lengths, seconds, draws=draws, seed=seed)
    each = ratio_interval(seconds, np.ones_like(counts), draws=draws, seed=seed)
    prompts = len(counts)
    total = Interval(
        each.value * prompts, each.low * prompts, each.high * prompts, each.standard_error * prompts, prompts
    )
    if len({s.seconds for s in rows}) == 1:  # one batch, divided evenly: nothing says how its time would vary
        nan = float("nan")
        total = Interval(total.value, nan, nan, nan, prompts)
    return Figures(
        samples=len(rows),
        proxy=mean([s.rewards["proxy"] for s in rows]),
        gold=mean([s.rewards["gold"] for s in rows]),
        kl=mean([s.kl for s in rows]),
        tokens_per_second=rate,
        seconds=total,
        flops=mean([s.flops for s in rows]),
        tokens=mean([float(s.tokens) for s in rows]),
        length=mean([float(s.length) for s in rows]),
        finished=mean([float(s.finished) for s in rows]),
        distinct_2=mean([s.distinct_2 for s in rows]),
        repetition=mean([s.repetition for s in rows]),
    )


def _sums(ids: Sequence[str], values: Sequence[float]) -> np.ndarray:
    """(B,) sums over each prompt's samples, in the order of the ids."""
    totals: dict[str, float] = {}
    for prompt_id, value in zip(ids, values, strict=True):
        totals[prompt_id] = totals.get(prompt_id, 0.0) + value
    return np.array([totals[prompt_id] for prompt_id in sorted(totals)])
