"""The head over the vocabulary: its arithmetic, and its folder."""

from pathlib import Path

import pytest
import torch

from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead
from stages.learn.values.vocab_head import VocabHead, is_vocab_head


def make() -> VocabHead:
    """Q(s, ·) = (h₀, h₁ + 5, h₀ + h₁)."""
    head = VocabHead(size=2, vocabulary=3, reward="a", layer=1, trunk="abc")
    with torch.no_grad():
        head.last.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        head.last.bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
    return head


def test_one_state_scores_every_token():
    assert make()(torch.tensor([2.0, 3.0])).tolist() == [2.0, 8.0, 5.0]


def test_the_score_of_one_token_is_its_column():
    hidden, tokens = torch.tensor([[2.0, 3.0], [4.0, 1.0], [0.0, 0.0]]), torch.tensor([2, 0, 1])
    assert make().taken(hidden, tokens).tolist() == [5.0, 4.0, 5.0]  # 2 + 3, 4, 0 + 5
    random = torch.randn(7, 4, 2), torch.randint(3, (7, 4))
    every = make()(random[0]).gather(-1, random[1][..., None])[..., 0]
    assert torch.allclose(make().taken(*random), every)


def test_reads_bfloat16_states_and_answers_in_float32():
    hidden = torch.ones(1, 2, dtype=torch.bfloat16)
    assert make()(hidden).dtype == make().taken(hidden, torch.tensor([1])).dtype == torch.float32


def test_a_folded_standardisation_changes_no_value():
    head, raw = make(), torch.tensor([[5.0, -2.0], [1.0, 4.0]])
    mean, sd = torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.5])
    before = head((raw - mean) / sd)
    head.fold(mean, sd)
    assert torch.allclose(head(raw), before, atol=1e-5)


def test_saved_and_loaded_is_the_same_head_and_a_scalar_one_is_refused(tmp_path: Path):
    head = make()
    head.mean.fill_(2.0)
    head.save(tmp_path)
    again = VocabHead.load(tmp_path)
    assert torch.equal(again(torch.ones(2)), head(torch.ones(2)))
    assert (again.trunk, again.layer, again.vocabulary, float(again.mean)) == ("abc", 1, 3, 2.0)
    assert is_vocab_head(tmp_path)
    ValueHead(size=2, rewards=["a"], layer=1).save(tmp_path)
    assert not is_vocab_head(tmp_path)
    with pytest.raises(BadInput, match=r"^guide\.folder: .*holds no value head over the vocabulary"):
        VocabHead.load(tmp_path, field="guide.folder")
