"""Architectures that are refused as they are loaded: one line that names the key and the way out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, LlamaModel

from stages.engine.causal_lm import CausalLM
from stages.engine.loaded import LoadedLM
from stages.engine.trial import require_known_architecture
from stages.errors import BadInput


def line(act: Callable[[], Any]) -> str:
    with pytest.raises(BadInput) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


SIZES = {"vocab_size": 400, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


SLOTTED: dict[str, tuple[dict[str, Any], str]] = {
    "mpt": (
        {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
        "this architecture does not take positions as they are given (states of candidates beside each other are ",
    ),
    "bloom": (
        {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        "this architecture does not step over a cache with padding (",
    ),
    "falcon": (
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
        "this architecture does not step over a cache with padding (",
    ),
    "gpt_neo": (
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        "its local attention counts a window by slots of the cache; use another model",
    ),
}
"""Families whose attention knows a token by its slot (ALiBi, a window), and what is said of them."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", SLOTTED)
def test_a_model_that_counts_positions_by_slots_is_refused_as_it_is_loaded(
    kind: str, dtype: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Of candidates beside each other the first alone would be right."""
    settings, why = SLOTTED[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **settings))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    said = line(lambda: CausalLM(tmp_path, dtype).load("cpu", "guide.tuned"))
    assert said.startswith(f"guide.tuned.folder: {why}")
    assert said.endswith("use another model")


def test_the_trial_of_a_load_is_three_short_forwards(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the one token that shows the head: plain, padded prompts, candidates."""
    fed: list[tuple[int, ...]] = []
    plain = LlamaModel.forward

    def forward(self: Any, input_ids: Any = None, **given: Any) -> Any:
        fed.append(tuple(input_ids.shape))
        return plain(self, input_ids, **given)

    monkeypatch.setattr(LlamaModel, "forward", forward)
    CausalLM(tiny_model).load("cpu")
    assert fed == [(1, 1), (4, 3), (2, 2), (2, 6)]


def test_logits_that_are_changed_after_the_head_are_refused(tiny_model: Path) -> None:
    class Capped(LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out: Any = super().forward(*args, **kwargs)
            out.logits = torch.tanh(out.logits)
            return out

    model = Capped.from_pretrained(tiny_model).eval()
    with pytest.raises(BadInput, match=r"policy\.folder: .*logits after the head"):
        require_known_architecture(
            LoadedLM(tiny_model, model, AutoTokenizer.from_pretrained(tiny_model), "policy.folder")
        )
