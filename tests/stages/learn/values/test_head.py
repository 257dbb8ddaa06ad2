"""What both kinds of head have in common: values along a response, and their folders."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.errors import BadInput
from stages.learn.values.head import ValueModel, load_head, new_head
from stages.learn.values.scalar_head import ValueHead
from stages.learn.values.vocab_head import VocabHead

COMMON: dict[str, Any] = {"size": 2, "vocabulary": 3, "width": 4, "layer": 1, "dtype": "float32", "target": "soft"}


@pytest.mark.parametrize("kind", ["linear", "mlp", "vocab"])
def test_an_untrained_head_of_every_kind_says_zero_along_a_response(kind: str):
    head: ValueModel = new_head(kind, rewards=["a"], **COMMON)
    hidden, tokens = torch.randn(5, 4, 2), torch.zeros(5, 3, dtype=torch.long)  # B = 5, T = 3
    found = head.along(hidden, tokens)
    assert found.shape == (5, 4 - head.first_state, 1)
    assert found.abs().max() == 0
    assert head(hidden).shape == (5, 4, 3 if head.over_vocabulary else 1)
    assert head.rewards == ("a",)


def test_a_scalar_head_reads_each_state_and_one_over_the_vocabulary_the_state_before_it():
    scalar = new_head("linear", rewards=["a"], **COMMON)
    vocab = new_head("vocab", rewards=["a"], **COMMON)
    assert isinstance(scalar, ValueHead)
    assert isinstance(vocab, VocabHead)
    with torch.no_grad():
        scalar.last.weight.copy_(torch.tensor([[1.0, 10.0]]))
        vocab.last.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        vocab.last.bias.copy_(torch.tensor([0.0, 100.0, 0.0]))
    hidden, tokens = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([1, 2])
    assert scalar.along(hidden, tokens)[:, 0].tolist() == [21.0, 43.0, 65.0]
    # s₁ = after token 1 in state (1, 2): 2 + 100; s₂ = after token 2 in state (3, 4): 3 + 4; state (5, 6) is not read
    assert vocab.along(hidden, tokens)[:, 0].tolist() == [102.0, 7.0]
    assert (scalar.first_state, vocab.first_state) == (0, 1)


@pytest.mark.parametrize("kind", ["linear", "mlp", "vocab"])
def test_a_folder_is_opened_as_the_head_that_was_saved(tmp_path: Path, kind: str):
    head = new_head(kind, rewards=["a"], **COMMON)
    torch.nn.init.normal_(head.last.weight)
    head.save(tmp_path)
    again = load_head(tmp_path)
    assert type(again) is type(head)
    assert (again.layer, again.dtype, again.target, again.rewards) == (1, "float32", "soft", ("a",))
    hidden = torch.randn(6, 2)
    assert torch.equal(again(hidden), head(hidden))


def test_an_unknown_kind_and_a_folder_without_a_head_are_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"^head: 'tree' is no kind of value head"):
        new_head("tree", rewards=["a"], **COMMON)
    with pytest.raises(BadInput, match=r"^value: .*holds no value model"):
        load_head(tmp_path)
