"""What a reward is: text in, one number a response out.

A reward is any dataclass with `score`, configured by its `_target_`; it is cheap to construct and loads its model at
the first call. The shipped ones live in `stages/learn/` (`ProbeReward`, `TfidfReward`, `ClassifierReward`); your own is
a class of ten lines in a file of yours.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stages.errors import BadInput
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


class NotFiniteScore(BadInput, FloatingPointError):
    """A reward gave NaN or infinity: the configured reward is at fault, with its arithmetic."""


def scored(reward: Any, prompts: Sequence[Prompt], responses: Sequence[str], field: str) -> np.ndarray:
    """(N,) float64 scores, finite; whatever asks a reward asks it here. `field` is the reward's own key.

    Raises BadInput where it is no reward, refuses (its own field behind `field`) or answers with anything but N numbers
    in one dimension, NotFiniteScore where one of them is not finite.
    """
    name = type(reward).__name__
    if not isinstance(reward, Reward):
        raise BadInput(field, f"{name} is no reward: it has no score(prompts, responses)")
    try:
        answer = reward.score(prompts, responses)
    except BadInput as error:
        raise BadInput(f"{field}.{error.field}", error.problem) from error
    found = _numbers(answer, len(responses), f"{name}.score", field)
    if len(bad := np.flatnonzero(~np.isfinite(found))):
        row = int(bad[0])
        raise NotFiniteScore(
            field,
            f"{name} gave {found[row]} for prompt {prompts[row].id!r} and response {responses[row][:60]!r}; "
            "a reward must be a finite number for every text, the empty one too",
        )
    return found


def _numbers(answer: Any, count: int, what: str, field: str) -> np.ndarray:
    """The answer as (N,) float64. Raises BadInput where it is anything else: nothing is reshaped, no row guessed."""
    try:
        found = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # words, ragged lists, tensors of another device
        problem = str(error).strip().splitlines()[0]
        raise BadInput(field, f"{what} gave no array of numbers for {count} responses: {problem}") from error
    if found.shape != (count,):
        raise BadInput(field, f"{what} gave shape {found.shape} for {count} responses, not ({count},)")
    return found
