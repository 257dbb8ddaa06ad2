"""Chooses the strength of each method on one part of the prompts, and says on another part what that is worth.

The choice looks at the proxy alone, so that gold does not decide what it judges later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.errors import BadInput
from stages.statistics.interval import Interval
from stages.statistics.means import paired_difference, standard_error
from sweeps.points import Point, shown_settings


@dataclass(frozen=True)
class Choice:
    """The setting that was chosen for a method."""

    point: Point
    best: Point
    """The setting with the highest mean proxy on the selection part."""
    deficit: float
    """How far the chosen setting lies below the best on that part, in proxy reward."""
    allowed: float
    """How far below it may lie: `slack` standard errors of that paired difference."""
    prompts: int


@dataclass(frozen=True)
class Difference:
    """The rewards of a point minus those of the reference point, on the same prompts of the report part."""

    point: Point
    reference: Point
    proxy: Interval
    gold: Interval


def choose(points: Sequence[Point], part: str, slack: float = 0.0) -> dict[str, Choice]:
    """For each method with several points: the weakest setting whose proxy on `part` is close enough to the best.

    A setting is close enough when the mean of the paired difference (best − setting, over prompts) is at most `slack`
    standard errors of that mean: 0 takes the best; 1 is the one-standard-error rule, which takes a weaker setting
    where more strength gains little. Of those settings the one with the smallest KL is chosen, or for a method without
    a KL the one with the least compute. Source: Hastie et al., *Elements of Statistical Learning* §7.10; the pairing is
    ours.

    Raises BadInput for `select_part` where a method's settings share no prompt there.
    """
    methods: dict[str, list[Point]] = {}
    for point in points:
        methods.setdefault(point.method, []).append(point)
    chosen = {}
    for method, settings in methods.items():
        if len(settings) < 2:
            continue
        proxies = [point.rewards("proxy", part) for point in settings]
        shared = sorted(set.intersection(*(set(proxy) for proxy in proxies)))
        if not shared:
            raise BadInput(
                "select_part", f"the {len(settings)} settings of {method} share no prompt of part {part!r} to choose on"
            )
        values = np.array([[proxy[prompt] for prompt in shared] for proxy in proxies])  # (settings, B)
        best = int(values.mean(1).argmax())
        for row in sorted(range(len(settings)), key=lambda row: settings[row].strength(part)):
            behind = values[best] - values[row]  # (B,)
            allowed = slack * standard_error(behind)
            if behind.mean() <= allowed + 1e-12:
                chosen[method] = Choice(settings[row], settings[best], float(behind.mean()), allowed, len(shared))
                break
    return chosen


def reference_point(points: Sequence[Point], reference: str, part: str) -> Point | None:
    """The point that the others are compared with: the strongest of the method `reference`, such as the largest N.

    Where no point is of that method, it is the weakest point of all (the base policy). None for a single point.
    """
    same = [point for point in points if point.method == reference]
    if len(points) < 2:
        return None
    if same:
        return max(same, key=lambda point: point.strength(part))
    return min(points, key=lambda point: point.strength(part))


def differences(
    points: Sequence[Point], chosen: Mapping[str, Choice], against: Point, part: str, *, draws: int, seed: int
) -> list[Difference]:
    """The differences of points to the reference `against`, paired over the prompts of `part`.

    Of every other method it is the chosen point, or all its points where none is chosen. Where there is no other method
    it is those of the reference's own.
    """
    found = []
    several = len({point.method for point in points}) > 1
    for point in points:
        ours = chosen[point.method].point if point.method in chosen else point
        if point is not ours or point is against or (point.method == against.method and several):
            continue
        pairs = {
            name: paired_difference(point.rewards(name, part), against.rewards(name, part), draws=draws, seed=seed)
            for name in ("proxy", "gold")
        }
        found.append(Difference(point, against, **pairs))
    return found


def verdict(points: Sequence[Point], chosen: Mapping[str, Choice], found: Sequence[Difference], part: str) -> str:
    """The answer in words: a sentence for each method with several strengths; where there is none, for each method."""
    if len(points) == 1:
        return f"One point only: {named(points[0], points)}. A comparison needs two."
    if not found:  # of one method, and nothing is above the point that stands for π₀
        method = points[0].method
        best = f"{named(chosen[method].point, points)} was chosen by proxy reward; " if method in chosen else ""
        return f"{len(points)} settings of {method}: {best}there is nothing else to hold it against."
    headline = [d for d in found if d.point.method in chosen] or list(found)
    return " ".join(_sentence(d, points, chosen, part) for d in headline)


def _sentence(d: Difference, points: Sequence[Point], chosen: Mapping[str, Choice], part: str) -> str:
    ours, theirs = named(d.point, points), named(d.reference, points)
    how = ""
    if d.point.method in chosen:
        how = f", chosen on {chosen[d.point.method].prompts} other prompts by proxy reward alone,"
    interval = f"95 % interval [{d.gold.low:+.2f}, {d.gold.high:+.2f}], {d.gold.items} {part} prompts, paired"
    if d.gold.sign:
        more = "more" if d.gold.sign > 0 else "less"
        return f"{ours}{how} earns {abs(d.gold.value):.2f} {more} gold reward than {theirs} ({interval})."
    return (
        f"{ours}{how} and {theirs} cannot be told apart in gold reward: the difference is {d.gold.value:+.2f} "
        f"({interval}); this sample could detect {d.gold.detectable:.2f}."
    )


def named(point: Point, points: Sequence[Point]) -> str:
    """The point's name: `vas (β = 4)`, or only `vas` where it is the only point of its method."""
    several = sum(other.method == point.method for other in points) > 1
    settings = shown_settings(point, points)
    return f"{point.method} ({settings})" if several and settings else point.method
