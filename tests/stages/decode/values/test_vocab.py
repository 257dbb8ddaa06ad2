"""Heads over the vocabulary on a lane."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.decode.guides.vocab_value import VocabValue
from stages.decode.values.vocab import VocabValues, open_vocab_values
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.values.scalar_head import fingerprint
from stages.learn.values.vocab_head import VocabHead


def line(act: Callable[[], Any]) -> str:
    with pytest.raises(BadInput) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_head_of_another_vocabulary_is_refused(policy: LoadedLM, tiny_model: Path, tmp_path: Path) -> None:
    VocabHead(size=32, vocabulary=7, reward="proxy", layer=2, trunk=fingerprint(tiny_model)).save(tmp_path)
    assert line(lambda: VocabValue(tmp_path).open(Lanes(policy), Sampling())) == (
        f"guide.folder: the value model in {tmp_path} scores 7 tokens, but the model {policy.folder} has "
        f"{policy.vocabulary}; train one for it"
    )


def values(transform: str) -> VocabValues:
    """D = 2, V = 3: Q = (h₀, h₁, h₀ + h₁ + 1) of the lane's first state."""
    head = VocabHead(size=2, vocabulary=3, reward="proxy", layer=1).requires_grad_(False)
    head.last.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    head.last.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    lane: Any = None
    return VocabValues("value", lane, 0, head, transform)


def test_the_value_of_the_taken_token_is_its_place_among_all() -> None:
    """h = (2, −1): Q = (2, −1, 2); h = (0, 0): Q = (0, 0, 1)."""
    states, tokens = (torch.tensor([[2.0, -1.0], [0.0, 0.0]]),), torch.tensor([1, 2])
    assert values("identity").values(states).tolist() == [[2.0, -1.0, 2.0], [0.0, 0.0, 1.0]]
    assert values("identity").taken(states, tokens).tolist() == [-1.0, 1.0]
    for one in (values("identity"), values("log_sigmoid")):
        assert torch.equal(one.taken(states, tokens), one.values(states).gather(1, tokens[:, None])[:, 0])
    assert values("log_sigmoid").values(states)[1, 0].item() == pytest.approx(-0.693147, abs=1e-6)


def test_the_whole_product_and_one_row_of_it_cost_two_flops_a_weight() -> None:
    """Three tokens of two weights and a bias: 2·9, and 2·3 for one of them."""
    assert (values("identity").flops, values("identity").token_flops) == (18.0, 6.0)


def test_a_head_over_the_vocabulary_reads_its_layer_of_the_policy(policy: LoadedLM, vocab_head: Path) -> None:
    lanes = Lanes(policy)
    opened = open_vocab_values(lanes, vocab_head, None, "identity", "guide", eager=True, reward="proxy")
    assert (opened.lane, opened.place, lanes.policy.taps) == (lanes.policy, 0, [2])
    assert (
        line(lambda: open_vocab_values(lanes, vocab_head, None, "identity", "guide", eager=True, reward="gold"))
        == "guide.reward: the value model has no reward 'gold'; it has proxy"
    )


def test_a_scalar_head_is_none_over_the_vocabulary(policy: LoadedLM, head: Path) -> None:
    assert line(lambda: open_vocab_values(Lanes(policy), head, None, "identity", "guide", eager=True)).startswith(
        f"guide.folder: {head} holds no value head over the vocabulary"
    )
