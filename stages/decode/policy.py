"""The policy that decodes: a causal language model from a folder, stepped over a `RowCache`, counting what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.decode.cache import Mask, RowCache
from stages.errors import BadInput
from stages.language_model import load_model, load_tokenizer

DTYPES = ("float32", "bfloat16", "float16")
SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}


class Forward(NamedTuple):
    """What one forward over F tokens a row gives."""

    last: Tensor
    """(R, F, D) final hidden states, ready for the language-model head."""
    read: Tensor
    """(R, F, D) hidden_states[layer] in Hugging Face's numbering; `last` where no layer was asked for."""


@dataclass
class CausalLM:
    """A Hugging Face folder with a causal language model (base, fine-tuned or merged)."""

    folder: Path
    dtype: str = "float32"
    """torch's name for the weights' type: `float32`, `bfloat16`, `float16`."""

    def load(self, device: str, field: str = "policy") -> "Policy":
        """Loads model and tokenizer. Raises BadInput for an unknown dtype, an incomplete folder, or an architecture
        whose logits are not its head applied to the final hidden state, or that has no ordinary attention cache."""
        if self.dtype not in DTYPES:
            raise BadInput(f"{field}.dtype", f"{self.dtype!r} is not one of {', '.join(DTYPES)}")
        folder = Path(self.folder)
        tokenizer = load_tokenizer(folder, f"{field}.folder")
        model = load_model(folder, dtype=self.dtype, device=device, field=f"{field}.folder")
        return Policy(folder, model, tokenizer, f"{field}.folder")


class Policy:
    """A loaded causal LM. `model` is used through its trunk and its head apart: of k candidates that go through the
    trunk only the chosen one needs logits."""

    def __init__(self, folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase, field: str) -> None:
        self.folder, self.model, self.tokenizer = folder, model, tokenizer
        self.trunk, self.head = model.base_model, model.get_output_embeddings()
        self.config = model.config
        self.layers: int = self.config.num_hidden_layers
        self.vocabulary: int = self.config.vocab_size
        self.eos: int = int(tokenizer.eos_token_id)  # type: ignore[arg-type]
        self._refuse_unusual(field)
        embedding = model.get_input_embeddings().weight.numel()
        head = sum(p.numel() for p in self.head.parameters())
        self.trunk_parameters = sum(p.numel() for p in self.trunk.parameters()) - embedding
        self.head_parameters = head
        size = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        self.attention_per_token = 4 * self.layers * self.config.num_attention_heads * size

    def _refuse_unusual(self, field: str) -> None:
        kinds = set(getattr(self.config, "layer_types", None) or ()) - SUPPORTED_LAYERS
        if kinds:
            raise BadInput(field, f"its layers of type {min(kinds)!r} keep no plain key/value cache; use another model")
        ids = torch.tensor([[self.eos]], device=self.device)
        with torch.inference_mode():
            whole = self.model(input_ids=ids, use_cache=False).logits
            parts = self.logits(self.trunk(input_ids=ids, use_cache=False).last_hidden_state)
        if not torch.equal(whole.isnan(), parts.isnan()) or not torch.allclose(whole, parts, rtol=1e-2, equal_nan=True):
            raise BadInput(field, "this architecture scales or caps its logits after the head; use one that does not")

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def cache(self, rows: int, capacity: int) -> RowCache:
        return RowCache(self.config, rows=rows, capacity=capacity, dtype=self.dtype, device=self.device)

    def forward(self, ids: Tensor, positions: Tensor, mask: Mask, cache: RowCache, layer: int | None) -> Forward:
        """One forward of ids (R, F) behind what the cache holds; hidden states of `layer` where it is given."""
        between = layer is not None and layer < self.layers
        out = self.trunk(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=between,
        )
        last = out.last_hidden_state  # (R, F, D)
        return Forward(last, out.hidden_states[layer] if between else last)

    def step(self, ids: Tensor, cache: RowCache, layer: int | None) -> Forward:
        """Forwards F alternative next tokens (R, F) of every active row; `cache.keep` then chooses."""
        width = ids.shape[1]
        return self.forward(ids, cache.positions(width), cache.mask(width), cache, layer)

    def prefill(self, prompts: Sequence[Sequence[int]], layer: int | None) -> tuple[RowCache, Forward]:
        """Encodes prompts in one left-padded forward: their cache, and the states of their last tokens (F = 1)."""
        lengths = [len(prompt) for prompt in prompts]
        cache = self.cache(len(prompts), max(lengths))
        cache.begin(lengths)
        padded = [[self.eos] * (cache.length - len(prompt)) + list(prompt) for prompt in prompts]
        ids = torch.tensor(padded, device=self.device)  # (R, T)
        positions = (cache.slots[None] - cache.starts[:, None]).clamp(min=0)  # (R, T)
        out = self.forward(ids, positions, cache.prompt_mask(), cache, layer)
        cache.prefilled()
        return cache, Forward(out.last[:, -1:], out.read[:, -1:])

    def logits(self, last: Tensor) -> Tensor:
        """(…, V) next-token logits of final hidden states (…, D)."""
        return self.head(last)

    def flops(self, tokens: int, attended: int, logits: int) -> float:
        """Forward FLOPs: 2·(trunk parameters without the input embedding)·tokens, 4·layers·heads·head size for each
        of the `attended` (token, attended position) pairs, 2·(head matrix) for each position that got logits."""
        return float(
            2 * self.trunk_parameters * tokens + self.attention_per_token * attended + 2 * self.head_parameters * logits
        )
