"""Best-of-N: which sample is returned, what it costs, and its bound on KL."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from stages.decode.best_of import BestOf
from stages.engine.response import Response
from stages.errors import BadInput
from stages.records import Prompt

PROMPTS = [Prompt(id=name, part="test", text=name) for name in ("a", "b")]


class Length:
    """Longer is better."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        assert [prompt.id for prompt in prompts] == ["a"] * 4 + ["b"] * 4
        return np.array([len(text) for text in responses], dtype=float)


class Broken:
    """Its score of the sixth is NaN, or all scores have another shape."""

    def __init__(self, shape: tuple[int, ...] | None = None) -> None:
        self.shape = shape

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        if self.shape is not None:
            return np.zeros(self.shape)
        return np.array([math.nan if i == 5 else 0.0 for i in range(len(responses))])


def rows() -> list[Response]:
    texts = ["x", "xxx", "xx", "xx", "xx", "x", "", "x"]
    return [
        Response(
            i // 4, i % 4, text=text, logprob=-1.0 - i, base_logprob=-1.0 - i, tokens=10 + i, flops=2.0, seconds=0.5
        )
        for i, text in enumerate(texts)
    ]


def test_the_best_of_each_group_is_returned_the_first_of_equals() -> None:
    # two outputs a prompt, two samples each: (x, xxx), (xx, xx) | (xx, x), ("", x)
    chosen = BestOf(2, Length()).choose(PROMPTS, rows())
    assert [(row.prompt, row.sample, row.text) for row in chosen] == [
        (0, 0, "xxx"),
        (0, 1, "xx"),
        (1, 0, "xx"),
        (1, 1, "x"),
    ]
    assert [row.base_logprob for row in chosen] == [-2, -3, -5, -8]


def test_every_sample_costs() -> None:
    first = BestOf(4, Length()).choose(PROMPTS, rows())[0]
    assert (first.tokens, first.flops, first.seconds) == (10 + 11 + 12 + 13, 8.0, 2.0)
    assert math.isnan(first.logprob)


class Costly(Length):
    def cost(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        lengths = np.array([3 + len(text) for text in responses])
        return lengths, 100.0 * lengths


def test_scoring_every_sample_costs_too() -> None:
    """x xxx xx xx | xx x (nothing) x: 4 + 6 + 5 + 5 and 5 + 4 + 3 + 4 tokens of the reward's own model."""
    free = BestOf(4, Length()).choose(PROMPTS, rows())
    counted = BestOf(4, Costly()).choose(PROMPTS, rows())
    assert [row.text for row in counted] == [row.text for row in free]
    assert [row.tokens - other.tokens for row, other in zip(counted, free, strict=True)] == [20, 16]
    assert [row.flops - other.flops for row, other in zip(counted, free, strict=True)] == [2000, 1600]


def test_one_sample_is_the_base_and_nobody_scores_it() -> None:
    assert BestOf(1, Broken()).choose(PROMPTS, rows()) == rows()


def test_kl_bound() -> None:
    assert BestOf(16, Length()).kl() == pytest.approx(1.835, abs=5e-4)  # 2.7726 − .9375
    assert BestOf(1, Length()).kl() == 0


def test_the_bound_holds_for_a_fair_coin() -> None:
    """Best of 16 is heads unless all are tails: p = 1 − 2⁻¹⁶, KL = p·log 2p + (1 − p)·log 2(1 − p) = .693."""
    p = 1 - 2**-16
    exact = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert exact == pytest.approx(0.693, abs=5e-4)
    assert exact < BestOf(16, Length()).kl()


def test_a_reward_that_is_not_finite_is_named() -> None:
    with pytest.raises(FloatingPointError, match=r"^search\.reward: Broken gave nan for prompt 'b' and response 'x'"):
        BestOf(2, Broken()).choose(PROMPTS, rows())


@pytest.mark.parametrize("shape", [(6,), (8, 2), (8, 1), (1, 8)])
def test_a_reward_of_the_wrong_shape_chooses_nothing(shape: tuple[int, ...]) -> None:
    """Six scores of eight: the last group would have been chosen among two; (8, 2): by the flattened argmax."""
    with pytest.raises(BadInput, match=r"^search\.reward: Broken\.score gave shape"):
        BestOf(4, Broken(shape)).choose(PROMPTS, rows())


def test_no_sample_is_refused() -> None:
    with pytest.raises(BadInput, match=r"search\.n: 0 is not a positive number"):
        BestOf(0, Length()).check()
