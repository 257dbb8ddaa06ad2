"""Bootstrap draws as weights. A draw takes n items out of n with replacement; its weights say how often each came up.

A model is fitted on a draw by weighting its rows, so that many draws are fitted at once.
"""

from collections.abc import Iterator

import numpy as np

from stages.errors import BadInput

FEWEST = 1000


def checked_draws(draws: int) -> int:
    """The number of draws. Raises BadInput where it is too small for a 95 % interval."""
    if draws < FEWEST:
        raise BadInput("draws", f"{draws} bootstrap draws are too few for a 95 % interval; {FEWEST:,} at least")
    return draws


def draw_counts(items: int, draws: int, seed: int) -> np.ndarray:
    """(draws, items) how often each item came up. It depends on the arguments alone, so models can share draws."""
    return np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=draws).astype(np.float64)


def leave_one_out(items: int, portion: int) -> Iterator[np.ndarray]:
    """The weights of the jackknife, (portion, items) at a time: every item once, except one."""
    for start in range(0, items, portion):
        rows = np.arange(start, min(start + portion, items))
        counts = np.ones((len(rows), items))
        counts[np.arange(len(rows)), rows] = 0.0
        yield counts
