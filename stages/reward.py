"""What a reward is: text in, one number a response out.

A reward is any dataclass with `score`, configured by its `_target_`; it is cheap to construct and loads its model at
the first call. The shipped ones live in `stages/learn/` (`ProbeReward`, `TfidfReward`, `ClassifierReward`); your own is
a class of ten lines in a file of yours.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from stages.records import Prompt


@runtime_checkable
class Reward(Protocol):
    """Scores responses. The score of one pair does not depend on the others in the call, nor on the device."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """(N,) float64, one score a pair of prompt and response; higher is better."""
        ...


def judged_text(prompt: Prompt, response: str) -> str:
    """What a reward on plain text reads: the words of the response that the prompt already holds, then the response.

    >>> judged_text(Prompt(id="a", part="test", text="Movie review: A tired", opening="A tired"), " sequel.")
    'A tired sequel.'
    """
    return prompt.opening + response
