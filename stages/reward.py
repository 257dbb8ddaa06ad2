"""What a reward is: text in, one number a response out.

A reward is any dataclass with a method `score`, named in the configuration by its `_target_`. It is cheap to construct
and loads its model at the first call. The shipped ones are `ProbeReward`, `TfidfReward` and `ClassifierReward` in
`stages/learn/rewards/`; your own is a class of ten lines in a file of yours. Where a reward runs a model, its method
`cost` may say what scoring takes.
"""

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stages.errors import BadInput, below
from stages.records import Prompt

UNCOUNTED = "uncounted.json"
"""Beside the responses of a method: a list of the rewards, by class name, whose scoring is not in the FLOPs."""


@runtime_checkable
class Reward(Protocol):
    """Scores responses. The score of one pair does not depend on the others in the call, nor on the device."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """(N,) float64, one score a pair of prompt and response; higher is better."""
        ...


class Costed(Reward, Protocol):
    """A reward that says what scoring takes. A reward without `cost` counts as free, and the report says so."""

    def cost(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) tokens that are forwarded to score each pair once, and (N,) FLOPs of it: 2·parameters·tokens plus
        attention, without padding, as decoding counts them. It is computed from lengths; no model runs."""
        ...


def judged_text(prompt: Prompt, response: str) -> str:
    """What a reward on plain text reads: the words of the response that the prompt already holds, then the response.

    >>> judged_text(Prompt(id="a", part="test", text="Movie review: A tired", opening="A tired"), " sequel.")
    'A tired sequel.'
    """
    return prompt.opening + response


def judged_texts(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[str]:
    """`judged_text` of each pair."""
    return [judged_text(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]


class NotFiniteScore(BadInput, FloatingPointError):
    """A reward gave NaN or infinity: the configured reward is at fault, with its arithmetic."""


def require_reward(reward: Any, field: str) -> None:
    """Raises BadInput where an object is no `Reward`."""
    if not isinstance(reward, Reward):
        raise BadInput(field, f"{type(reward).__name__} is no reward: it has no score(prompts, responses)")


def scored(reward: Any, prompts: Sequence[Prompt], responses: Sequence[str], field: str) -> np.ndarray:
    """(N,) float64 scores, checked to be finite. Every stage asks rewards through this function. `field` is the
    reward's key in the configuration.

    Raises BadInput where it is no reward, refuses (its own field behind `field`) or answers with anything but N numbers
    in one dimension, NotFiniteScore where one of them is not finite.
    """
    require_reward(reward, field)
    name = type(reward).__name__
    with below(field):
        answer = reward.score(prompts, responses)
    found = _numbers(answer, len(responses), f"{name}.score", field)
    if len(bad := np.flatnonzero(~np.isfinite(found))):
        row = int(bad[0])
        raise NotFiniteScore(
            field,
            f"{name} gave {found[row]} for prompt {prompts[row].id!r} and response {responses[row][:60]!r}; "
            "a reward must be a finite number for every text, the empty one too",
        )
    return found


def spent(
    reward: Any, prompts: Sequence[Prompt], responses: Sequence[str], field: str
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 tokens and (N,) float64 FLOPs of scoring each pair once; 0 where the reward does not say (`Costed`).

    Raises BadInput as `scored` does.
    """
    if not _says_cost(reward):
        return np.zeros(len(responses), dtype=np.int64), np.zeros(len(responses))
    with below(field):
        tokens, flops = reward.cost(prompts, responses)
    what = f"{type(reward).__name__}.cost"
    return _numbers(tokens, len(responses), what, field).astype(np.int64), _numbers(flops, len(responses), what, field)


def uncounted(part: Any) -> list[str]:
    """Class names of the rewards in a configured object (a search) that do not say what scoring takes."""
    if isinstance(part, Reward):
        return [] if _says_cost(part) else [type(part).__name__]
    within = [getattr(part, f.name) for f in fields(part)] if is_dataclass(part) and not isinstance(part, type) else []
    return list(dict.fromkeys(name for one in within for name in uncounted(one)))


def write_uncounted(out: Path, search: Any) -> None:
    """What the FLOPs of the responses in `out` leave out: `uncounted` of what selected among them."""
    (Path(out) / UNCOUNTED).write_text(json.dumps(uncounted(search)) + "\n", encoding="utf-8")


def read_uncounted(folder: Path) -> list[str]:
    """What `write_uncounted` wrote. Raises FileNotFoundError."""
    return list(json.loads((Path(folder) / UNCOUNTED).read_text(encoding="utf-8")))


def _says_cost(reward: Any) -> bool:
    return callable(getattr(reward, "cost", None))


def _numbers(answer: Any, count: int, what: str, field: str) -> np.ndarray:
    """The answer as (N,) float64. Raises BadInput where it has another shape: it is never reshaped to fit."""
    try:
        found = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # words, ragged lists, tensors of another device
        problem = str(error).strip().splitlines()[0]
        raise BadInput(field, f"{what} gave no array of numbers for {count} responses: {problem}") from error
    if found.shape != (count,):
        raise BadInput(field, f"{what} gave shape {found.shape} for {count} responses, not ({count},)")
    return found
