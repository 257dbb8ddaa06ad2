"""Preference pairs from labelled rollouts: two responses to one prompt, the better one and the worse one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stages.errors import BadInput
from stages.records import Labelled


class Pair(NamedTuple):
    """A prompt with a better and a worse response, as tokens."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def ranked_pairs(rewards: Sequence[float], texts: Sequence[str], most: int, margin: float) -> list[tuple[int, int]]:
    """(better, worse) indices of one prompt's responses: the best with the worst, the second with the second worst, …

    At most `most` pairs, each with rewards at least `margin` apart, and never of equal rewards or texts.

    >>> ranked_pairs([0.0, 3.0, 1.0, 2.0], ["a", "b", "c", "d"], most=4, margin=1.5)
    [(1, 0)]
    >>> ranked_pairs([0.0, 3.0, 1.0, 2.0], ["a", "b", "c", "d"], most=4, margin=0.5)
    [(1, 0), (3, 2)]
    """
    order = sorted(range(len(rewards)), key=lambda i: (-rewards[i], i))
    matched = zip(order[: len(order) // 2], reversed(order), strict=False)
    apart = [
        (better, worse)
        for better, worse in matched
        if rewards[better] > rewards[worse]
        and rewards[better] - rewards[worse] >= margin
        and texts[better] != texts[worse]
    ]
    return apart[:most]


def make_pairs(
    rollouts: Sequence[Labelled],
    rewards: Sequence[float],
    prompts: Mapping[str, list[int]],
    *,
    most: int,
    margin: float,
    sd: float,
) -> list[tuple[str, Pair]]:
    """(prompt id, pair) of all prompts; `margin` in units of `sd`, the reward's deviation. Raises BadInput for none."""
    of_prompt: dict[str, list[int]] = {}
    for index, rollout in enumerate(rollouts):
        of_prompt.setdefault(rollout.prompt_id, []).append(index)
    made = []
    for name, members in of_prompt.items():
        found = ranked_pairs([rewards[i] for i in members], [rollouts[i].text for i in members], most, margin * sd)
        for better, worse in found:
            chosen, rejected = (list(rollouts[members[i]].token_ids) for i in (better, worse))
            made.append((name, Pair(prompts[name], chosen, rejected)))
    if not made:
        widest = max(float(np.ptp([rewards[i] for i in members])) for members in of_prompt.values()) / sd
        raise BadInput(
            "margin",
            f"no two responses to one prompt are {margin:g} standard deviations apart in reward (the widest are "
            f"{widest:.2g}); set a smaller margin or sample more responses a prompt",
        )
    return made
