"""Preference pairs: the best with the worst of one prompt, far enough apart."""

import pytest

from stages.errors import BadInput
from stages.learn.policies.pairs import Pair, make_pairs, ranked_pairs
from stages.records import Labelled


def test_pairs_are_the_best_with_the_worst_and_need_their_margin():
    assert ranked_pairs([5, 1, 3, 2, 9], list("abcde"), most=9, margin=0) == [(4, 1), (0, 3)]  # the middle is left out
    assert ranked_pairs([5, 1, 3, 2, 9], list("abcde"), most=1, margin=0) == [(4, 1)]
    assert ranked_pairs([5, 1, 3, 2, 9], list("abcde"), most=9, margin=4) == [(4, 1)]  # 5 − 2 < 4
    assert ranked_pairs([1.0, 1.0], ["a", "b"], most=1, margin=0) == []
    assert ranked_pairs([1.0, 2.0], ["a", "a"], most=1, margin=0) == []


def rollout(prompt: str, token: int) -> Labelled:
    return Labelled(
        prompt_id=prompt,
        sample=0,
        token_ids=[token, 2],
        text=str(token),
        logprob=-1.0,
        finished=True,
        part="train",
        rewards={},
    )


ROLLOUTS = [rollout("a", 30), rollout("b", 40), rollout("a", 31), rollout("a", 32), rollout("b", 41)]
REWARDS = [0.0, 5.0, 4.0, 1.0, 4.5]
PROMPTS = {"a": [7], "b": [8, 9]}


def test_pairs_are_made_within_each_prompt_of_tokens():
    # a: rewards 0, 4, 1, so the second against the first; b: 5 and 4.5. All at least a quarter deviation (of 2) apart.
    made = make_pairs(ROLLOUTS, REWARDS, PROMPTS, most=4, margin=0.25, sd=2.0)
    assert made == [("a", Pair([7], [31, 2], [30, 2])), ("b", Pair([8, 9], [40, 2], [41, 2]))]


def test_the_margin_is_in_deviations_of_the_reward():
    made = make_pairs(ROLLOUTS, REWARDS, PROMPTS, most=4, margin=2.0, sd=2.0)  # 4 apart is enough, .5 is not
    assert [name for name, _ in made] == ["a"]
    with pytest.raises(BadInput, match=r"^margin: no two .* 2\.1 standard deviations apart .*the widest are 2\)"):
        make_pairs(ROLLOUTS, REWARDS, PROMPTS, most=4, margin=2.1, sd=2.0)
