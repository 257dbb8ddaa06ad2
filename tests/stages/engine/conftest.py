"""Models that share the policy's trunk, and a stand-in for quantised loading."""

import copy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.engine.language_model import load_model
from stages.learn.lora import adapted
from stages.learn.values.scalar_head import fingerprint


@pytest.fixture(scope="session")
def tuned_above() -> Callable[..., Any]:
    """`tuned_above(model, fork, layer)`: a copy of a causal LM with merged LoRA on layers fork … layer − 1, as stage
    `value` makes it."""

    def make(model: Any, fork: int, layer: int) -> Any:
        model = copy.deepcopy(model)
        adapters = adapted(model.base_model, rank=4, alpha=16, top_layers=layer - fork, layers=layer)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, parameter in adapters.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        adapters.merge_and_unload()
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def tuned_top(tiny_model: Path, tuned_above: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy with layer 1 of 3 tuned; layers 0 and 2 are its own."""
    folder = tmp_path_factory.mktemp("tuned_top")
    tuned_above(load_model(tiny_model, dtype="float32", device="cpu"), 1, 2).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def top_head(tuned_top: Path, make_head: Any) -> Path:
    """A value head on state 2 of it, with its model beside it."""
    folder = make_head(layer=2, trunk=fingerprint(tuned_top))
    shutil.copytree(tuned_top, folder / "model")
    return folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the package; a load gives the plain model and is kept here."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    plain, kept = AutoModelForCausalLM.from_pretrained, []

    def load(folder: Path, **settings: Any) -> Any:
        kept.append({"folder": folder, **settings})
        return plain(folder, dtype=settings["dtype"], local_files_only=True)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    return kept
