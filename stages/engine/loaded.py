"""A loaded causal language model, stepped over a `RowCache`, counting what it costs.

The policy that decodes is one; so is every model that steps beside it (`lanes.py`).
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.engine.cache import Mask, RowCache
from stages.engine.head import Head
from stages.engine.sections import Sections, Tap, Taps, branch_ends, forks


class Forward(NamedTuple):
    """What one forward over F tokens a row gives."""

    last: Tensor
    """(R, F, D) hidden states after the layers that ran; after all of them ready for the language-model head."""
    states: tuple[Tensor, ...]
    """(R, F, D) hidden_states[layer] in Hugging Face's numbering, for each state asked for."""
    reached: int
    """How many of the trunk's layers ran."""

    def at(self, rows: Tensor | slice, tokens: Tensor | int) -> "Forward":
        """One token a row: (R, D) each."""
        return Forward(self.last[rows, tokens], tuple(state[rows, tokens] for state in self.states), self.reached)


def parameters(module: Any) -> int:
    """Weights of a module; of those that bitsandbytes packs, two in a byte, as many as they stand for."""
    packed = [(parameter, getattr(parameter, "quant_state", None)) for parameter in module.parameters()]
    return sum(p.numel() if state is None else math.prod(state.shape) for p, state in packed)


class LoadedLM:
    """A causal LM in memory, on its device.

    `model` is used through its trunk and its head apart, and the trunk in sections: of k candidates only the chosen one
    needs logits, and the layers above all that values read.
    """

    def __init__(self, folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase, field: str) -> None:
        self.folder, self.model, self.tokenizer, self.field = folder, model, tokenizer, field
        self.trunk, self.head = model.base_model, Head.of(model)
        self.config = model.config
        self.layers: int = self.config.num_hidden_layers
        self.vocabulary: int = self.config.vocab_size
        self.eos: int = int(tokenizer.eos_token_id)  # type: ignore[arg-type]
        self.sections = Sections(self.trunk, self.layers, field)
        self.trunk_parameters = parameters(self.trunk) - parameters(model.get_input_embeddings())
        self.head_parameters = parameters(self.head.embedding)
        size = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        self.attention_per_layer = 4 * self.config.num_attention_heads * size
        self.parameters_below = [0, *accumulate(parameters(layer) for layer in self.sections.layers)]
        """In the layers below each; last, in all of them."""

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def lowest(self, taps: Taps) -> int:
        """How many layers must run before all of `taps` are there (all, where nothing is read)."""
        return max(1, *forks(taps)) if taps else self.layers

    def cache(self, rows: int, capacity: int, taps: Taps = (), *, logits: bool = True) -> RowCache:
        """For `taps`, and for logits where they are asked for: without them the layers above stay out."""
        split = self.lowest(taps)
        return RowCache(
            self.config,
            rows=rows,
            capacity=capacity,
            dtype=self.dtype,
            device=self.device,
            depth=self.layers if logits else split,
            split=split,
            branches=[(branch.first, end) for branch, end in branch_ends(taps).items()],
        )

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Mask, cache: RowCache, taps: Taps = (), until: int | None = None
    ) -> Forward:
        """One forward of ids (R, F) behind what the cache holds, through all its layers or the first `until`."""
        until = cache.depth if until is None else until
        call: dict[str, Any] = {"attention_mask": mask, "position_ids": positions, "use_cache": True}
        if not taps and until == self.layers:
            out = self.trunk(input_ids=ids, past_key_values=cache, **call)
            return Forward(out.last_hidden_state, (), until)
        own = self.sections.run(0, until, forks(taps), input_ids=ids, past_key_values=cache, **call)
        tops = {}
        for (branch, end), keys in zip(branch_ends(taps).items(), cache.branches, strict=True):
            wanted = [tap.layer for tap in taps if isinstance(tap, Tap) and tap.branch is branch]
            call["past_key_values"] = keys
            tops[branch] = branch.sections.run(branch.first, end, wanted, own[branch.first], **call)
        states = [tops[tap.branch][tap.layer] if isinstance(tap, Tap) else own[tap] for tap in taps]
        return Forward(own[until], tuple(states), until)

    def step(self, ids: Tensor, cache: RowCache, taps: Taps = ()) -> Forward:
        """Forwards F alternative next tokens (R, F) of every active row; `cache.keep` then chooses. Alternatives end
        at the cache's split: `finish` takes the one that is kept through the layers above."""
        width = ids.shape[1]
        until = cache.split if width > 1 else cache.depth
        return self.forward(ids, cache.positions(width), cache.mask(width), cache, taps, until)

    def finish(self, states: Tensor, reached: int, cache: RowCache) -> Tensor:
        """Final hidden states (R, D) of every active row's newest token from its `states` (R, D) after `reached`
        layers; the layers above write their keys and values."""
        with cache.newest() as (positions, mask):
            found = self.sections.run(
                reached,
                self.layers,
                given=states[:, None],
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
        return found[self.layers][:, 0]

    def prefill(
        self, prompts: Sequence[Sequence[int]], taps: Taps = (), *, logits: bool = True
    ) -> tuple[RowCache, Forward]:
        """Encodes prompts in one left-padded forward: their cache, and the states of their last tokens (F = 1)."""
        lengths = [len(prompt) for prompt in prompts]
        cache = self.cache(len(prompts), max(lengths), taps, logits=logits)
        cache.begin(lengths)
        padded = [[self.eos] * (cache.length - len(prompt)) + list(prompt) for prompt in prompts]
        ids = torch.tensor(padded, device=self.device)  # (R, T)
        positions = (cache.slots[None] - cache.starts[:, None]).clamp(min=0)  # (R, T)
        out = self.forward(ids, positions, cache.prompt_mask(), cache, taps)
        cache.prefilled()
        return cache, Forward(out.last[:, -1:], tuple(states[:, -1:] for states in out.states), out.reached)

    def logits(self, last: Tensor) -> Tensor:
        """(…, V) next-token logits of final hidden states (…, D)."""
        return self.head(last)

    def fit(self, logits: Tensor) -> Tensor:
        """Logits (…, V') of another model on this one's device, as float32, cut or filled to this one's V.

        Models of one tokenizer may pad their vocabulary differently; the padding is never drawn.
        """
        logits = logits.to(self.device, torch.float32)
        missing = self.vocabulary - logits.shape[-1]
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits

    def flops(
        self, tokens: int, attended: int, logits: int, taps: Taps = (), first: int = 0, end: int | None = None
    ) -> float:
        """Forward FLOPs of layers first … end − 1 and of the branches that `taps` need: 2·parameters·tokens (the final
        norm's with the last layer, the input embedding's never), 4·heads·head size a layer for each of the `attended`
        (token, attended position) pairs, 2·(head matrix) for each position that got logits."""
        end = self.layers if end is None else end
        below = self.parameters_below
        weights = below[end] - below[first]
        if end == self.layers:
            weights += self.trunk_parameters - below[-1]
        layers = end - first
        for branch, top in branch_ends(taps).items():
            weights += below[top] - below[branch.first]
            layers += top - branch.first
        return float(
            2 * weights * tokens + self.attention_per_layer * layers * attended + 2 * self.head_parameters * logits
        )
