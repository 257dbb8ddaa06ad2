"""Where a language model can be loaded."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.engine.causal_lm import CausalLM
from stages.engine.language_model import load_model
from stages.errors import BadInput


def test_a_device_without_float64_is_refused_in_one_line(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's: float32 works there, so a policy would load and the first step fail."""
    zeros = torch.zeros

    def like_apple(*size: int, dtype: torch.dtype, device: str) -> Any:
        if dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype. Please use float32 instead.")
        return zeros(*size, dtype=dtype)

    monkeypatch.setattr(torch, "zeros", like_apple)
    with pytest.raises(BadInput) as error:
        CausalLM(tiny_model).load("mps")
    assert str(error.value) == (
        "runtime.device: 'mps' has no float64, which decoding needs (Cannot convert a MPS Tensor to float64 dtype); "
        "choose another device"
    )


def test_a_device_that_is_not_there_is_one_line(tiny_model: Path) -> None:
    with pytest.raises(
        BadInput, match=r"^runtime\.device: 'abacus' has no float64, .*; choose another device$"
    ) as error:
        load_model(tiny_model, dtype="float32", device="abacus")
    assert "\n" not in str(error.value)


def test_no_free_memory_is_another_matter(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*size: int, **where: Any) -> Any:
        raise torch.OutOfMemoryError("no memory is left")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_model(tiny_model, dtype="float32", device="cpu")


def test_nothing_offers_a_device_that_is_refused() -> None:
    root = Path(__file__).parents[3]
    offers = [*(root / "conf").rglob("*.yaml"), root / "stages" / "runtime.py", root / "README.md"]
    assert [path.name for path in offers if re.search(r"\bmps\b", path.read_text(encoding="utf-8"))] == []
    assert "cuda:1" in (root / "conf" / "model" / "local.yaml").read_text(encoding="utf-8")
