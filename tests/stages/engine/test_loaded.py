"""A loaded model: what a forward gives, and what it costs."""

import math
from pathlib import Path
from types import SimpleNamespace

import torch

from stages.engine.causal_lm import CausalLM
from stages.engine.loaded import LoadedLM


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
