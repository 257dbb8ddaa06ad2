"""Quantised models: what reaches transformers where bitsandbytes is present, what is said where it is not."""

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from stages.decode.guides.implicit_value import ImplicitValue
from stages.engine.causal_lm import CausalLM
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Sampling
from stages.errors import BadInput


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the package; a load gives the plain model and is kept here."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    plain, loads = AutoModelForCausalLM.from_pretrained, []

    def load(folder: Path, **settings: Any) -> Any:
        loads.append({"folder": folder, **settings})
        return plain(folder, dtype=settings["dtype"], local_files_only=True)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    return loads


@pytest.mark.parametrize(("quantisation", "eight"), [("8bit", True), ("4bit", False)])
def test_the_quantisation_reaches_the_model_with_its_type_and_device(
    asked: list[dict[str, Any]], tiny_model: Path, quantisation: str, eight: bool
) -> None:
    policy = CausalLM(tiny_model, "bfloat16", quantisation=quantisation).load("cpu")
    (load,) = asked
    config = load.pop("quantization_config")
    assert load == {
        "folder": tiny_model,
        "dtype": torch.bfloat16,
        "device_map": {"": "cpu"},
        "local_files_only": True,
    }
    assert (config.load_in_8bit, config.load_in_4bit) == (eight, not eight)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert not any(p.requires_grad for p in policy.model.parameters())


def test_each_model_has_its_own_quantisation_and_device(
    asked: list[dict[str, Any]], policy: LoadedLM, tuned_model: Path, small_model: Path
) -> None:
    tuned = CausalLM(tuned_model, device="cpu:0", quantisation="4bit")
    ImplicitValue(tuned, CausalLM(small_model, quantisation="8bit")).open(Lanes(policy), Sampling())
    assert [(one["folder"], one["device_map"][""]) for one in asked] == [(tuned_model, "cpu:0"), (small_model, "cpu")]
    assert [one["quantization_config"].load_in_4bit for one in asked] == [True, False]


def test_a_quantised_policy_is_one_lane_with_what_names_it(asked: list[dict[str, Any]], tiny_model: Path) -> None:
    """Null means as the policy is; 4 bits beside its 8 would be ignored, and are refused."""
    policy = CausalLM(tiny_model, quantisation="8bit").load("cpu")
    policy.model.is_loaded_in_8bit = True  # transformers' own mark, which the stand-in does not set
    lanes = Lanes(policy)
    for quantisation in (None, "8bit"):
        assert lanes.join(CausalLM(tiny_model, quantisation=quantisation), "guide.tuned", eager=True) is lanes.policy
    with pytest.raises(BadInput, match=r"^guide\.tuned\.quantisation: 4bit was asked for, .* loaded already with 8bit"):
        lanes.join(CausalLM(tiny_model, quantisation="4bit"), "guide.tuned", eager=True)
    assert len(asked) == 1


def test_weights_packed_two_in_a_byte_count_as_what_they_stand_for(tiny_model: Path, policy: LoadedLM) -> None:
    """32 × 64 weights of four bits are 1,024 bytes."""
    packed = CausalLM(tiny_model).load("cpu").model
    projection = packed.base_model.layers[0].mlp.down_proj
    stored = torch.nn.Parameter(torch.zeros(1024, 1, dtype=torch.uint8), requires_grad=False)
    stored.quant_state = SimpleNamespace(shape=projection.weight.shape)  # type: ignore[attr-defined]
    assert math.prod(projection.weight.shape) == 2048
    projection.weight = stored
    projection.forward = lambda x: torch.zeros(*x.shape[:-1], 32)  # type: ignore[method-assign]
    quantised = LoadedLM(tiny_model, packed, policy.tokenizer, "policy.folder")
    assert quantised.trunk_parameters == policy.trunk_parameters
    assert quantised.flops(3, 7, 1) == policy.flops(3, 7, 1)


def test_without_the_package_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BadInput) as error:
        CausalLM(tiny_model, quantisation="8bit").load("cpu", "guide.tuned")
    assert error.value.field == "guide.tuned.quantisation"
    assert error.value.problem == "needs the package bitsandbytes, which is not installed; set it to null"


def test_a_package_that_cannot_be_used_is_one_line_too(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    def load(folder: Path, **settings: Any) -> Any:
        raise ImportError("requires bitsandbytes>=0.46\nand more")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(BadInput) as error:
        CausalLM(tiny_model, quantisation="4bit").load("cpu")
    assert str(error.value) == "policy.quantisation: bitsandbytes cannot be used: requires bitsandbytes>=0.46"


def test_an_unknown_quantisation_is_refused(tiny_model: Path) -> None:
    with pytest.raises(BadInput, match=r"policy\.quantisation: '2bit' is not one of 8bit, 4bit"):
        CausalLM(tiny_model, quantisation="2bit").load("cpu")
