"""Low-rank adapters: which modules get them, and what is left of them after the merge."""

from pathlib import Path

import pytest
import torch

from stages.engine.language_model import load_model
from stages.errors import BadInput
from stages.learn.lora import adapted, merged

IDS = torch.tensor([[5, 9, 17, 30]])


def trained_layers(model: torch.nn.Module) -> set[str]:
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    return {name.split(".layers.")[1].split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("top", "layers", "changed"), [(0, None, {"0", "1", "2"}), (2, None, {"1", "2"}), (0, 2, {"0", "1"}), (1, 2, {"1"})]
)
def test_the_topmost_of_the_layers_that_count_are_adapted(tiny_model: Path, top: int, layers: int, changed: set[str]):
    model = load_model(tiny_model, dtype="float32", device="cpu")
    assert trained_layers(adapted(model, rank=2, alpha=4, top_layers=top, layers=layers)) == changed


def test_adapters_start_at_zero_and_are_added_with_alpha_over_rank(tiny_model: Path):
    model = load_model(tiny_model, dtype="float32", device="cpu")
    plain = model(input_ids=IDS).logits
    before = model.model.layers[2].mlp.up_proj.weight.clone()
    adapters = adapted(model, rank=2, alpha=8, top_layers=1)
    assert torch.equal(adapters(input_ids=IDS).logits, plain)
    matrices = {}
    with torch.no_grad():
        for name, parameter in adapters.named_parameters():
            if "mlp.up_proj.lora" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.1)
                matrices["A" if "lora_A" in name else "B"] = parameter.clone()
    moved = adapters(input_ids=IDS).logits
    whole = merged(adapters, "float32")
    after = whole.get_parameter("model.layers.2.mlp.up_proj.weight")
    assert torch.allclose(after, before + 8 / 2 * matrices["B"] @ matrices["A"], atol=1e-6)
    assert torch.allclose(whole(input_ids=IDS).logits, moved, atol=1e-4)


def test_what_was_merged_is_an_ordinary_frozen_model_of_the_dtype(tiny_model: Path):
    whole = merged(
        adapted(load_model(tiny_model, dtype="float32", device="cpu"), rank=2, alpha=4, top_layers=0), "bfloat16"
    )
    names = [name for name, _ in whole.named_parameters()]
    assert names == [name for name, _ in load_model(tiny_model, dtype="float32", device="cpu").named_parameters()]
    assert {p.dtype for p in whole.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in whole.parameters())


def test_layers_that_are_not_there_are_refused(tiny_model: Path):
    model = load_model(tiny_model, dtype="float32", device="cpu")
    with pytest.raises(BadInput, match=r"^top_layers: 4 is not 0 \(all\) to 3, the model's layers"):
        adapted(model, rank=2, alpha=4, top_layers=4)
    with pytest.raises(BadInput, match=r"^top_layers: 3 is not 0 \(all\) to 2"):
        adapted(model, rank=2, alpha=4, top_layers=3, layers=2)
