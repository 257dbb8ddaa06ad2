"""What a reward is, and what it reads."""

import numpy as np

from stages.records import Prompt
from stages.reward import Reward, judged_text


class Length:
    def score(self, prompts, responses):
        return np.array([len(judged_text(p, r)) for p, r in zip(prompts, responses, strict=True)], dtype=np.float64)


def prompt(**fields: str) -> Prompt:
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
