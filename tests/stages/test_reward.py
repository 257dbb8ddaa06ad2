"""What a reward is, and what it reads."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.decode.best_of import BestOf
from stages.decode.chunk_search import ChunkSearch
from stages.decode.scorers.explicit import ExplicitScorer
from stages.decode.scorers.reward import RewardScorer
from stages.errors import BadInput
from stages.records import Prompt
from stages.reward import NotFiniteScore, Reward, judged_text, read_uncounted, scored, spent, write_uncounted


class Length:
    def score(self, prompts, responses):
        return np.array([len(judged_text(p, r)) for p, r in zip(prompts, responses, strict=True)], dtype=np.float64)


def prompt(**fields: Any) -> Prompt:
    return Prompt(id="a", part="test", **fields)


def test_a_response_is_judged_with_the_words_it_opened_with():
    asked = prompt(text="Movie review: A tired", opening="A tired")
    assert judged_text(asked, " sequel.") == "A tired sequel."


def test_without_an_opening_the_response_is_judged_alone():
    assert judged_text(prompt(text="Tell me of Rome."), "It rains.") == "It rains."


def test_any_class_with_score_is_a_reward():
    assert isinstance(Length(), Reward)
    assert not isinstance(object(), Reward)
    assert Length().score([prompt(text="x: ab", opening="ab")], ["cde"]).tolist() == [5.0]


# answers


class Fixed:
    """Answers the same, whatever it is asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def score(self, prompts, responses) -> Any:
        if isinstance(self.answer, BadInput):
            raise self.answer
        return self.answer


ASKED = [Prompt(id=name, part="test", text=name) for name in "abcd"]
TEXTS = ["one", "two", "three", "four"]


@pytest.mark.parametrize("answer", [[1, 2, 3, 4], np.arange(1, 5, dtype=np.float32), (1.0, 2, 3, 4)])
def test_n_numbers_are_float64_scores(answer: object):
    found = scored(Fixed(answer), ASKED, TEXTS, "reward")
    assert found.dtype == np.float64
    assert found.tolist() == [1, 2, 3, 4]
    assert scored(Fixed([]), [], [], "reward").shape == (0,)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ([1.0, 2.0], r"gave shape \(2,\) for 4 responses, not \(4,\)"),
        (np.zeros((4, 1)), r"gave shape \(4, 1\)"),
        (np.zeros((4, 2)), r"gave shape \(4, 2\)"),
        (1.0, r"gave shape \(\)"),
        (None, r"gave shape \(\)"),
        ([1.0, [2.0], 3.0, 4.0], "gave no array of numbers for 4 responses: "),
        (["good", "bad", "good", "bad"], "gave no array of numbers for 4 responses: "),
    ],
)
def test_any_other_answer_is_refused_in_one_line(answer: object, line: str):
    with pytest.raises(BadInput, match=rf"^search\.reward: Fixed\.score {line}") as error:
        scored(Fixed(answer), ASKED, TEXTS, "search.reward")
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, FloatingPointError)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_names_the_reward_the_prompt_and_the_response(bad: float):
    with pytest.raises(FloatingPointError) as error:
        scored(Fixed([0.0, 1.0, bad, bad]), ASKED, TEXTS, "rewards.gold")
    assert isinstance(error.value, NotFiniteScore)
    assert isinstance(error.value, BadInput)
    assert str(error.value) == (
        f"rewards.gold: Fixed gave {bad} for prompt 'c' and response 'three'; "
        "a reward must be a finite number for every text, the empty one too"
    )


def test_what_a_reward_refuses_stands_under_its_key():
    with pytest.raises(BadInput, match=r"^rewards\.proxy\.folder: no probe"):
        scored(Fixed(BadInput("folder", "no probe")), ASKED, TEXTS, "rewards.proxy")
    with pytest.raises(BadInput, match=r"^reward: object is no reward: it has no score\(prompts, responses\)"):
        scored(object(), ASKED, TEXTS, "reward")


def test_no_stage_asks_a_reward_past_the_check():
    """Seven places ask rewards: a rule in each of them was four rules, and three that looked at no shape."""
    root = Path(__file__).parents[2] / "stages"
    asks = re.compile(r"rewards?(\[\w+\])?\.score\(")
    assert [path.name for path in root.rglob("*.py") if asks.search(path.read_text(encoding="utf-8"))] == ["reward.py"]


# what scoring takes


class Costly(Fixed):
    """Two tokens and ten FLOPs a character, or whatever it is given."""

    def cost(self, prompts, responses):
        if isinstance(self.answer, tuple):
            return self.answer
        return [2 * len(r) for r in responses], np.array([10.0 * len(r) for r in responses])


def test_a_reward_says_what_scoring_takes_or_counts_as_free():
    tokens, flops = spent(Costly(0), ASKED, TEXTS, "reward")
    assert (tokens.dtype, tokens.tolist()) == (np.int64, [6, 6, 10, 8])
    assert (flops.dtype, flops.tolist()) == (np.float64, [30, 30, 50, 40])
    free = Fixed(0)
    vars(free)["cost"] = 0.1  # a setting of somebody's own
    assert [part.tolist() for part in spent(free, ASKED, TEXTS, "reward")] == [[0] * 4, [0] * 4]


@pytest.mark.parametrize("cost", [([1, 2], [1.0] * 4), ([1] * 4, 3.0), ([1] * 4, np.ones((4, 1)))])
def test_a_cost_of_another_shape_is_refused(cost: tuple):
    with pytest.raises(BadInput, match=r"^reward: Costly\.cost gave shape .* for 4 responses"):
        spent(Costly(cost), ASKED, TEXTS, "reward")


@pytest.mark.parametrize(
    ("search", "names"),
    [
        (None, []),
        (BestOf(4, Fixed(0)), ["Fixed"]),
        (BestOf(4, Costly(0)), []),
        (ChunkSearch(scorer=RewardScorer(Fixed(0))), ["Fixed"]),
        (ChunkSearch(scorer=RewardScorer(Costly(0))), []),
        (ChunkSearch(scorer=ExplicitScorer(Path("value"))), []),
    ],
)
def test_what_a_search_leaves_uncounted_is_written_beside_its_responses(tmp_path: Path, search, names: list[str]):
    write_uncounted(tmp_path, search)
    assert read_uncounted(tmp_path) == names
