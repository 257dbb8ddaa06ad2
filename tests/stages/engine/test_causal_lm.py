"""Loading a model as it is configured; quantised: what reaches transformers where bitsandbytes is present, what is said
where it is not."""

import shutil
import sys
from pathlib import Path
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


def test_a_policy_of_unknown_type_is_refused(tiny_model: Path) -> None:
    with pytest.raises(BadInput, match=r"policy\.dtype: 'float31'"):
        CausalLM(tiny_model, dtype="float31").load("cpu")


def test_a_policy_without_a_tokenizer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model / name, tmp_path / name)
    with pytest.raises(BadInput, match=r"policy\.folder: .*no tokenizer"):
        CausalLM(tmp_path).load("cpu")


# quantised


@pytest.mark.parametrize(("quantisation", "eight"), [("8bit", True), ("4bit", False)])
def test_the_quantisation_reaches_the_model_with_its_type_and_device(
    loads: list[dict[str, Any]], tiny_model: Path, quantisation: str, eight: bool
) -> None:
    policy = CausalLM(tiny_model, "bfloat16", quantisation=quantisation).load("cpu")
    (load,) = loads
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
    loads: list[dict[str, Any]], policy: LoadedLM, tuned_model: Path, small_model: Path
) -> None:
    tuned = CausalLM(tuned_model, device="cpu:0", quantisation="4bit")
    ImplicitValue(tuned, CausalLM(small_model, quantisation="8bit")).open(Lanes(policy), Sampling())
    assert [(one["folder"], one["device_map"][""]) for one in loads] == [(tuned_model, "cpu:0"), (small_model, "cpu")]
    assert [one["quantization_config"].load_in_4bit for one in loads] == [True, False]


def test_without_the_package_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BadInput) as error:
        CausalLM(tiny_model, quantisation="8bit").load("cpu", "guide.tuned")
    assert error.value.field == "guide.tuned.quantisation"
    assert error.value.problem == "needs the package bitsandbytes, which is not installed; set it to null"


def test_a_package_that_cannot_be_used_is_one_line_too(
    loads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tiny_model: Path
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
