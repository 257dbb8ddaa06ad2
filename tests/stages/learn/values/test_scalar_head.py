"""The value head's arithmetic, its file format, and the fingerprint of a trunk."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead, fingerprint


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_starts_at_zero(head: str):
    model = ValueHead(size=4, rewards=["a", "b"], layer=2, head=head, width=8)
    values = model(torch.randn(3, 5, 4))
    assert values.shape == (3, 5, 2)
    assert values.abs().max() == 0


def test_linear_head_by_hand():
    model = ValueHead(size=2, rewards=["a"], layer=0)
    with torch.no_grad():
        model.last.weight.copy_(torch.tensor([[2.0, -1.0]]))
        model.last.bias.fill_(0.5)
    assert model(torch.tensor([3.0, 4.0])).tolist() == [2.5]  # 2·3 − 4 + .5


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_folded_standardisation_changes_no_value(head: str):
    torch.manual_seed(0)
    model = ValueHead(size=4, rewards=["a"], layer=1, head=head, width=8)
    torch.nn.init.normal_(model.last.weight)
    raw, mean, sd = torch.randn(6, 4) * 3 + 5, torch.tensor([5.0, 4.0, 6.0, 0.0]), torch.tensor([3.0, 2.0, 0.5, 1.0])
    before = model((raw - mean) / sd)
    model.fold(mean, sd)
    assert torch.allclose(model(raw), before, atol=1e-5)


def test_reads_bfloat16_states_and_answers_in_float32():
    assert ValueHead(size=4, rewards=["a"], layer=1)(torch.zeros(4, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_saved_and_loaded_is_the_same_model(tmp_path: Path, head: str):
    torch.manual_seed(0)
    model = ValueHead(size=4, rewards=["a", "b"], layer=7, head=head, width=8, trunk="abc")
    torch.nn.init.normal_(model.last.weight)
    model.mean.copy_(torch.tensor([1.0, 2.0]))
    model.sd.copy_(torch.tensor([3.0, 4.0]))
    model.save(tmp_path)
    loaded = ValueHead.load(tmp_path)
    hidden = torch.randn(5, 4)
    assert torch.equal(loaded(hidden), model(hidden))
    assert (loaded.layer, loaded.rewards, loaded.trunk) == (7, ("a", "b"), "abc")
    assert (loaded.mean.tolist(), loaded.sd.tolist()) == ([1.0, 2.0], [3.0, 4.0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["value.json", "value.safetensors"]
    assert json.loads((tmp_path / "value.json").read_text())["rewards"] == ["a", "b"]


def test_a_folder_without_a_value_model_is_refused_by_field(tmp_path: Path):
    with pytest.raises(BadInput, match=r"^guide\.folder: .*holds no value model"):
        ValueHead.load(tmp_path, field="guide.folder")


def test_an_unknown_head_is_refused():
    with pytest.raises(BadInput, match="choose one of linear, mlp"):
        ValueHead(size=4, rewards=["a"], layer=0, head="tree")


def test_fingerprint_follows_the_weights_alone(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file({"w": torch.ones(3)}, tmp_path / name / "model.safetensors")
    (tmp_path / "b" / "README.md").write_text("a note")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    save_file({"w": torch.ones(3) + 1}, tmp_path / "b" / "model.safetensors")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
