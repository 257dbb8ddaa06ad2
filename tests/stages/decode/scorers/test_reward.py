"""A reward as a scorer: it reads the text so far, and pays for all of it."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from stages.decode.parts import Successor
from stages.decode.scorers.reward import RewardScorer, TextRewards
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.errors import BadInput
from stages.records import Prompt

Search = Callable[..., list[Response]]


class Vowels:
    """Reward: how many vowels a text holds."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        assert len(prompts) == len(responses)
        return np.array([sum(text.count(letter) for letter in "aeiou") for text in responses], dtype=float)


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


def test_a_reward_is_charged_for_the_whole_text_at_every_comparison(search: Search, policy: LoadedLM) -> None:
    """What it says of itself, summed over its calls, is what the responses cost more than with the same reward free."""
    told: list[int] = []

    class Costly(Vowels):
        def cost(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            lengths = np.array([len(text) for text in responses])
            told.extend(lengths.tolist())
            return lengths, 2.0 * lengths

    free, counted = (search(RewardScorer(reward), 2, 2, 2) for reward in (Vowels(), Costly()))
    assert tokens(counted) == tokens(free)
    assert len(told) > 2 * 4 * len(free)  # three comparisons of up to four rows each
    assert sum(row.tokens for row in counted) - sum(row.tokens for row in free) == sum(told) > 0
    assert sum(row.flops for row in counted) - sum(row.flops for row in free) == pytest.approx(2 * sum(told))


@pytest.mark.parametrize("shape", [(-2,), (0, 1), (0, 2)])
def test_a_reward_of_the_wrong_shape_compares_nothing(search: Search, shape: tuple[int, ...]) -> None:
    """Two scores too few; (N, 1) and (N, 2)."""

    class Shapeless:
        def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
            return np.zeros((len(responses) + shape[0], *shape[1:]))

    with pytest.raises(BadInput, match=r"^search\.scorer\.reward: Shapeless\.score gave shape"):
        search(RewardScorer(Shapeless()), 2, 2, 2)


def test_each_row_s_text_is_scored_and_paid_for_by_hand() -> None:
    """`oboe` has three vowels and costs 4 tokens at 10 FLOPs each; `xy` has none and costs 2."""

    class Priced(Vowels):
        def cost(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            lengths = np.array([len(text) for text in responses])
            return lengths, 10.0 * lengths

    asked = [Prompt(id="a", part="test", text="so")] * 2
    rows = [Successor(0, 0, text="oboe", tokens=1), Successor(0, 0, slot=1, text="xy")]
    scorer = TextRewards(Priced(), "search.scorer")
    assert scorer.scores(rows, {}, asked) == [3.0, 0.0]
    assert [(row.tokens, row.flops) for row in rows] == [(1 + 4, 40.0), (2, 20.0)]
    assert scorer.name == "Priced"
