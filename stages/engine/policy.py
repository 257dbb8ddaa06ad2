"""A causal language model from a folder, stepped over a `RowCache`, counting what it costs.

The policy that decodes is one; so is every model that steps beside it (`lanes.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.engine.cache import Mask, RowCache
from stages.engine.head import Head, require_known_head
from stages.engine.language_model import load_model, load_tokenizer, require_model_folder
from stages.engine.sections import Reads, Sections, Tap, branch_ends, forks
from stages.errors import BadInput

DTYPES = ("float32", "bfloat16", "float16")
QUANTISATIONS = ("8bit", "4bit")
SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}
TRIAL = 6
"""Candidates that step side by side when a model is loaded: the last one's slot is five beyond its position."""
TOLERANCES = {torch.float32: 0.01, torch.float16: 0.02, torch.bfloat16: 0.05}
"""Relative difference of states that rounding may make in the trial; positions by slot make it a tenth and more."""
QUANTISED_TOLERANCE = 0.1
"""Eight bits round by what shares the batch."""


class Forward(NamedTuple):
    """What one forward over F tokens a row gives."""

    last: Tensor
    """(R, F, D) hidden states after the layers that ran; after all of them ready for the language-model head."""
    read: tuple[Tensor, ...]
    """(R, F, D) hidden_states[layer] in Hugging Face's numbering, for each state asked for."""
    reached: int
    """How many of the policy's layers ran."""

    def at(self, rows: Tensor | slice, tokens: Tensor | int) -> "Forward":
        """One token a row: (R, D) each."""
        return Forward(self.last[rows, tokens], tuple(states[rows, tokens] for states in self.read), self.reached)


@dataclass
class CausalLM:
    """A Hugging Face folder with a causal language model (base, fine-tuned or merged).

    Each has its own type, device and quantisation: `tilt run method=eft +method.guide.tuned.quantisation=4bit`.
    """

    folder: Path
    dtype: str = "float32"
    """torch's name for the weights' type: `float32`, `bfloat16`, `float16`."""
    device: str | None = None
    """Where this model lives; null: where the stage runs."""
    quantisation: str | None = None
    """`8bit` or `4bit` through bitsandbytes; null: none."""

    def load(self, device: str, field: str = "policy") -> "Policy":
        """Loads model and tokenizer. Raises BadInput for an unknown dtype or quantisation, an incomplete folder, or an
        architecture whose logits are not its head applied to the final hidden state, that has no ordinary attention
        cache, or that counts positions by the cache's slots."""
        if self.dtype not in DTYPES:
            raise BadInput(f"{field}.dtype", f"{self.dtype!r} is not one of {', '.join(DTYPES)}")
        folder = Path(self.folder)
        tokenizer = load_tokenizer(folder, f"{field}.folder")
        where = self.device or device
        if self.quantisation is None:
            model = load_model(folder, dtype=self.dtype, device=where, field=f"{field}.folder")
        else:
            model = self._quantised(folder, where, field)
        return Policy(folder, model, tokenizer, f"{field}.folder")

    def _quantised(self, folder: Path, device: str, field: str) -> Any:
        if self.quantisation not in QUANTISATIONS:
            raise BadInput(f"{field}.quantisation", f"{self.quantisation!r} is not one of {', '.join(QUANTISATIONS)}")
        try:
            import bitsandbytes  # type: ignore[import-not-found]  # noqa: F401
        except ImportError as error:
            raise BadInput(
                f"{field}.quantisation", "needs the package bitsandbytes, which is not installed; set it to null"
            ) from error
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        require_model_folder(folder, f"{field}.folder")
        dtype, eight = getattr(torch, self.dtype), self.quantisation == "8bit"
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                quantization_config=BitsAndBytesConfig(
                    load_in_8bit=eight, load_in_4bit=not eight, bnb_4bit_compute_dtype=dtype
                ),
                device_map={"": device},
                local_files_only=True,
            )
        except ImportError as error:  # too old, or built for other devices
            problem = str(error).strip().splitlines()[0]
            raise BadInput(f"{field}.quantisation", f"bitsandbytes cannot be used: {problem}") from error
        return model.eval().requires_grad_(False)


def parameters(module: Any) -> int:
    """Weights of a module; of those that bitsandbytes packs, two in a byte, as many as they stand for."""
    packed = [(parameter, getattr(parameter, "quant_state", None)) for parameter in module.parameters()]
    return sum(p.numel() if state is None else math.prod(state.shape) for p, state in packed)


class Policy:
    """A loaded causal LM. `model` is used through its trunk and its head apart, and the trunk in sections: of k
    candidates only the chosen one needs logits, and the layers above all that values read."""

    def __init__(self, folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase, field: str) -> None:
        self.folder, self.model, self.tokenizer, self.field = folder, model, tokenizer, field
        self.trunk, self.head = model.base_model, Head.of(model)
        self.config = model.config
        self.layers: int = self.config.num_hidden_layers
        self.vocabulary: int = self.config.vocab_size
        self.eos: int = int(tokenizer.eos_token_id)  # type: ignore[arg-type]
        self.sections = Sections(self.trunk, self.layers, field)
        self._refuse_unusual(field)
        self.trunk_parameters = parameters(self.trunk) - parameters(model.get_input_embeddings())
        self.head_parameters = parameters(self.head.embedding)
        size = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        self.attention_per_layer = 4 * self.config.num_attention_heads * size
        self.parameters_below = [0, *accumulate(parameters(layer) for layer in self.sections.layers)]
        """In the layers below each; last, in all of them."""

    def _refuse_unusual(self, field: str) -> None:
        kinds = set(getattr(self.config, "layer_types", None) or ()) - SUPPORTED_LAYERS
        if kinds:
            raise BadInput(field, f"its layers of type {min(kinds)!r} keep no plain key/value cache; use another model")
        if "local" in (getattr(self.config, "attention_layers", None) or ()):  # GPT-Neo
            raise BadInput(field, "its local attention counts a window by slots of the cache; use another model")
        require_known_head(self.model, field)
        try:
            error = self._trial()
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:
            why = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise BadInput(
                field, f"this architecture does not step over a cache with padding ({why}); use another model"
            ) from problem
        quantised = getattr(self.config, "quantization_config", None) is not None
        allowed = QUANTISED_TOLERANCE if quantised else TOLERANCES.get(self.dtype, QUANTISED_TOLERANCE)
        if not error <= allowed:
            raise BadInput(
                field,
                f"this architecture does not take positions as they are given (states of candidates beside each other "
                f"are {error:.0%} off), perhaps ALiBi; use another model",
            )

    @torch.inference_mode()
    def _trial(self) -> float:
        """How far states of candidates side by side behind left-padded prompts are from those of plain forwards,
        relative, the mean over a prompt's candidates; 0 where plain forwards are not finite (decoding names that).

        A mean, since a single state of a mixture of experts may change much by rounding.
        """
        *ids, one, other = [self.vocabulary * eighth // 8 for eighth in range(1, 6)]
        prompts, candidates = [ids[:1], ids[1:]], [one, other] * (TRIAL // 2)
        longest = len(prompts[1])
        plain = [[*prompt, token, *ids][: longest + 1] for prompt in prompts for token in (one, other)]
        states = self.trunk(input_ids=torch.tensor(plain, device=self.device), use_cache=False).last_hidden_state
        ends = torch.tensor([len(prompt) for prompt in prompts], device=self.device).repeat_interleave(2)
        expected = states[torch.arange(len(plain), device=self.device), ends].float()  # (2·2, D)
        if not expected.isfinite().all():
            return 0.0
        expected = expected.view(2, 2, -1).repeat(1, TRIAL // 2, 1)  # (R, F, D)
        reads = (self.layers,)  # through the sections, as values are read
        prefilled, _ = self.prefill(prompts, reads)
        cache = self.cache(len(prompts), longest + TRIAL, reads)
        cache.settle(longest)
        cache.enter(prefilled, range(len(prompts)))
        found = self.step(torch.tensor([candidates] * len(prompts), device=self.device), cache, reads).last.float()
        sizes = expected.norm(dim=2).clamp(min=1e-6)
        return float(((found - expected).norm(dim=2) / sizes).mean(dim=1).amax())

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def lowest(self, reads: Reads) -> int:
        """How many layers must run before all of `reads` are there (all, where nothing is read)."""
        return max(1, *forks(reads)) if reads else self.layers

    def cache(self, rows: int, capacity: int, reads: Reads = (), *, logits: bool = True) -> RowCache:
        """For `reads`, and for logits where they are asked for: without them the layers above stay out."""
        split = self.lowest(reads)
        return RowCache(
            self.config,
            rows=rows,
            capacity=capacity,
            dtype=self.dtype,
            device=self.device,
            depth=self.layers if logits else split,
            split=split,
            branches=[(branch.first, end) for branch, end in branch_ends(reads).items()],
        )

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Mask, cache: RowCache, reads: Reads = (), until: int | None = None
    ) -> Forward:
        """One forward of ids (R, F) behind what the cache holds, through all its layers or the first `until`."""
        until = cache.depth if until is None else until
        call: dict[str, Any] = {"attention_mask": mask, "position_ids": positions, "use_cache": True}
        if not reads and until == self.layers:
            out = self.trunk(input_ids=ids, past_key_values=cache, **call)
            return Forward(out.last_hidden_state, (), until)
        own = self.sections.run(0, until, forks(reads), input_ids=ids, past_key_values=cache, **call)
        tops = {}
        for (branch, end), keys in zip(branch_ends(reads).items(), cache.branches, strict=True):
            wanted = [read.layer for read in reads if isinstance(read, Tap) and read.branch is branch]
            call["past_key_values"] = keys
            tops[branch] = branch.sections.run(branch.first, end, wanted, own[branch.first], **call)
        read = [tops[r.branch][r.layer] if isinstance(r, Tap) else own[r] for r in reads]
        return Forward(own[until], tuple(read), until)

    def step(self, ids: Tensor, cache: RowCache, reads: Reads = ()) -> Forward:
        """Forwards F alternative next tokens (R, F) of every active row; `cache.keep` then chooses. Alternatives end
        at the cache's split: `finish` takes the one that is kept through the layers above."""
        width = ids.shape[1]
        until = cache.split if width > 1 else cache.depth
        return self.forward(ids, cache.positions(width), cache.mask(width), cache, reads, until)

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
        self, prompts: Sequence[Sequence[int]], reads: Reads = (), *, logits: bool = True
    ) -> tuple[RowCache, Forward]:
        """Encodes prompts in one left-padded forward: their cache, and the states of their last tokens (F = 1)."""
        lengths = [len(prompt) for prompt in prompts]
        cache = self.cache(len(prompts), max(lengths), reads, logits=logits)
        cache.begin(lengths)
        padded = [[self.eos] * (cache.length - len(prompt)) + list(prompt) for prompt in prompts]
        ids = torch.tensor(padded, device=self.device)  # (R, T)
        positions = (cache.slots[None] - cache.starts[:, None]).clamp(min=0)  # (R, T)
        out = self.forward(ids, positions, cache.prompt_mask(), cache, reads)
        cache.prefilled()
        return cache, Forward(out.last[:, -1:], tuple(states[:, -1:] for states in out.read), out.reached)

    def logits(self, last: Tensor) -> Tensor:
        """(…, V) next-token logits of final hidden states (…, D)."""
        return self.head(last)

    def flops(
        self, tokens: int, attended: int, logits: int, reads: Reads = (), first: int = 0, end: int | None = None
    ) -> float:
        """Forward FLOPs of layers first … end − 1 and of the branches that `reads` need: 2·parameters·tokens (the final
        norm's with the last layer, the input embedding's never), 4·heads·head size a layer for each of the `attended`
        (token, attended position) pairs, 2·(head matrix) for each position that got logits."""
        end = self.layers if end is None else end
        below = self.parameters_below
        weights = below[end] - below[first]
        if end == self.layers:
            weights += self.trunk_parameters - below[-1]
        layers = end - first
        for branch, top in branch_ends(reads).items():
            weights += below[top] - below[branch.first]
            layers += top - branch.first
        return float(
            2 * weights * tokens + self.attention_per_layer * layers * attended + 2 * self.head_parameters * logits
        )
