"""The models that decode together, each in its lane: its own cache and its newest states, all with the same rows.

Lane 0 is the policy. A guide or a scorer asks `Lanes.join` for its model; the same folder asked for twice is one lane,
and has to be asked for in the same way.
Lanes have prompts of their own (each model's chat template) but share the response's tokens, hence the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from stages.engine.cache import RowCache
from stages.engine.fork import branch_of, read_of
from stages.engine.policy import QUANTISATIONS, CausalLM, Forward, Policy
from stages.engine.prompts import encode_prompt, require_room
from stages.engine.sections import Branch, Tap
from stages.errors import BadInput
from stages.records import Prompt

SLACK = 16
"""Slots beyond the longest row: how many steps pass between two moves of a cache's buffer."""


class Ready(NamedTuple):
    """A prompt in the cache of its prefill, until all its rows have entered."""

    cache: RowCache
    row: int
    logits: Tensor | None
    """(V,)"""
    read: tuple[Tensor, ...]
    """(D,) each: states of the prompt's last token."""


class Lane:
    """One model, stepped with the others. Row i of its cache is row i of every eager lane."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.reads: list[int | Tap] = []
        self.wants_logits = False
        self.eager = False
        """Forwards every token as it is drawn; else a whole chunk at once (`chunk_lane.py`)."""
        self.own_tokens = False
        """Has another vocabulary: reads responses as text."""
        self.prompts: list[list[int]] = []
        self.logits: Tensor | None = None  # (R, V)
        self.read: tuple[Tensor, ...] = ()  # (R, D) each

    @property
    def device(self) -> torch.device:
        return self.policy.device

    def place(self, read: int | Tap) -> int:
        """Asks for a hidden state, by its layer or of a branch; returns its place in `read`."""
        if read not in self.reads:
            self.reads.append(read)
        return self.reads.index(read)

    def begin(self, rows: int, limit: int, width: int) -> None:
        """An empty cache for `rows` rows of up to `limit` tokens beyond a prompt, F = `width` of them in a forward."""
        longest = max((len(ids) for ids in self.prompts), default=0)
        capacity = longest + limit + width + SLACK
        self.cache = self.policy.cache(rows, capacity, self.reads, logits=self.wants_logits)
        self.logits, self.read = None, ()

    def prefill(self, wanted: Sequence[int]) -> list[Ready]:
        prompts = [self.prompts[prompt] for prompt in wanted]
        cache, out = self.policy.prefill(prompts, self.reads, logits=self.wants_logits)
        logits = self.policy.logits(out.last[:, 0]) if self.wants_logits else None  # (R, V)
        return [
            Ready(cache, row, None if logits is None else logits[row], tuple(states[row, 0] for states in out.read))
            for row in range(len(wanted))
        ]

    def enter(self, ready: Sequence[tuple[Ready, int]], longest: int) -> None:
        """Appends `count` rows of each (prefilled prompt, count); `longest` is the longest prompt among them."""
        self.cache.settle(max(self.cache.longest(), longest))
        old = self.cache.active
        for prompt, count in ready:
            self.cache.enter(prompt.cache, [prompt.row] * count)
        if self.wants_logits:
            logits = [prompt.logits.expand(count, -1) for prompt, count in ready if prompt.logits is not None]
            self.logits = torch.cat(logits if self.logits is None or old == 0 else [self.logits, *logits])
        read = [[prompt.read[n].expand(count, -1) for prompt, count in ready] for n in range(len(self.reads))]
        self.read = tuple(
            torch.cat(states if old == 0 else [self.read[n], *states]) for n, states in enumerate(read)
        )  # (R, D) each

    def forward(self, ids: Tensor) -> Forward:
        """F alternative next tokens (R, F) of every row; `cache.keep` then chooses."""
        if self.cache.length + ids.shape[1] > self.cache.capacity:
            self.cache.settle(self.cache.longest())
        return self.policy.step(ids.to(self.device), self.cache, self.reads)

    def take(self, newest: Forward) -> list[float]:
        """The states (R, D) of every row's newest token, on to its logits where they are wanted. Returns the FLOPs of
        that for each row."""
        self.read, self.logits = newest.read, None
        if not self.wants_logits:
            return [0.0] * self.cache.active
        last, above = newest.last, self.policy.layers - newest.reached
        if above:
            last = self.policy.finish(last, newest.reached, self.cache)
        self.logits = self.policy.logits(last)  # (R, V)
        return [self.policy.flops(min(above, 1), span, 1, first=newest.reached) for span in self._spans(0)]

    def select(self, rows: Sequence[int], states: bool) -> None:
        """Row i becomes what row rows[i] was; with `states` their newest states too."""
        self.cache.select(rows)
        if states:
            self.logits = None if self.logits is None else self.logits[list(rows)]
            self.read = tuple(state[list(rows)] for state in self.read)

    def step_flops(self, width: int) -> list[float]:
        """FLOPs of `forward` for each row."""
        end = self.cache.split if width > 1 else self.cache.depth
        return [self.policy.flops(width, width * span, 0, self.reads, end=end) for span in self._spans(1)]

    def sequence_flops(self, tokens: int, before: int, logits: int) -> float:
        """FLOPs of `tokens` one after the other behind `before` others; `logits` of them get logits."""
        end = self.policy.layers if self.wants_logits else self.policy.lowest(self.reads)
        attended = tokens * before + tokens * (tokens + 1) // 2
        return self.policy.flops(tokens, attended, logits if self.wants_logits else 0, self.reads, end=end)

    def prompt_flops(self, prompt: int) -> float:
        return self.sequence_flops(len(self.prompts[prompt]), 0, 1)

    def _spans(self, more: int) -> list[int]:
        """Tokens of every row that a token sees, itself included, when `more` are behind what the cache holds."""
        return (self.cache.length + more - self.cache.starts[: self.cache.active]).tolist()


Key = tuple[Path, str | None]


def _key(model: CausalLM) -> Key:
    return Path(model.folder).resolve(), model.quantisation


def _require(model: CausalLM, field: str, dtype: torch.dtype, device: torch.device) -> None:
    """Raises BadInput where a loaded model is asked for in another dtype, or on another device (null: any)."""
    if model.dtype != str(dtype).removeprefix("torch."):
        _refuse(f"{field}.dtype", model.folder, str(dtype).removeprefix("torch."), model.dtype)
    kind, _, index = (model.device or str(device)).partition(":")
    if (kind, index or "0") != (device.type, str(device.index or 0)):
        _refuse(f"{field}.device", model.folder, str(device), model.device)


def _refuse(field: str, folder: Path, loaded: str, asked: str | None) -> NoReturn:
    raise BadInput(
        field, f"{asked} was asked for, but {folder} is loaded already with {loaded}, for all that read it; use that"
    )


class Lanes:
    """The policy and the models that step beside it."""

    def __init__(self, policy: Policy) -> None:
        self.base = Lane(policy)
        self.base.wants_logits = self.base.eager = True
        self.all = [self.base]
        self._known: dict[Key, Lane] = {}
        self._branches: dict[Key, Branch] = {}
        self._loaded: dict[Key, tuple[torch.dtype, torch.device]] = {}
        """Of both."""

    def join(self, model: CausalLM | None, field: str, *, eager: bool) -> Lane:
        """The lane of a model; the policy's own for null and for the policy's folder. `field` is the model's key.

        Where every token is forwarded as it is drawn (`eager`) the vocabulary must be the policy's; what only scores
        chunks reads text where it is not. Raises BadInput where the model cannot be loaded, is loaded already with
        another dtype or device, or has another vocabulary: both are named.
        """
        if model is None or self._is_base(model, field):
            return self.base
        self._require_same(model, field)
        if _key(model) not in self._known:
            self._add(model, model.load(str(self.base.device), field))
        return self._ready(model, field, eager)

    def states(self, model: CausalLM | None, layer: int, field: str, *, eager: bool) -> tuple[Lane, int]:
        """As `join`, for a hidden state alone: its lane and its place in what that reads.

        A model that differs from the policy above some layer only is no lane: it branches off the policy's.
        """
        if model is None or self._is_base(model, field):
            return self.base, self.base.place(layer)
        self._require_same(model, field)
        key = _key(model)
        if key not in self._known and key not in self._branches:
            loaded = model.load(str(self.base.device), field)
            branch = branch_of(self.base.policy, loaded, field)
            if branch is None:
                self._add(model, loaded)
            else:
                self._branches[key] = branch
                self._loaded[key] = loaded.dtype, loaded.device
        if key in self._branches:
            return self.base, self.base.place(read_of(self._branches[key], layer))
        lane = self._ready(model, field, eager)
        return lane, lane.place(layer)

    def _is_base(self, model: CausalLM, field: str) -> bool:
        """Whether it is the policy, whose device and quantisation null then means. Raises BadInput for others."""
        policy = self.base.policy
        if Path(model.folder).resolve() != Path(policy.folder).resolve():
            return False
        own = next((q for q in QUANTISATIONS if getattr(policy.model, f"is_loaded_in_{q}", False)), None)
        if model.quantisation not in (None, own):
            _refuse(f"{field}.quantisation", policy.folder, str(own), model.quantisation)
        _require(model, field, policy.dtype, policy.device)
        return True

    def _require_same(self, model: CausalLM, field: str) -> None:
        """Raises BadInput where the model is loaded already in another way: what is asked for would be ignored."""
        if loaded := self._loaded.get(_key(model)):
            _require(replace(model, device=model.device or str(self.base.device)), field, *loaded)

    def _add(self, model: CausalLM, loaded: Policy) -> None:
        lane = self._known[_key(model)] = Lane(loaded)
        self._loaded[_key(model)] = loaded.dtype, loaded.device
        lane.own_tokens = self.base.policy.tokenizer.get_vocab() != loaded.tokenizer.get_vocab()
        self.all.append(lane)

    def _ready(self, model: CausalLM, field: str, eager: bool) -> Lane:
        lane = self._known[_key(model)]
        if eager and lane.own_tokens:
            self._refuse_vocabulary(lane.policy, f"{field}.folder")
        lane.eager = lane.eager or eager
        return lane

    def _refuse_vocabulary(self, other: Policy, field: str) -> None:
        mine, theirs = len(self.base.policy.tokenizer.get_vocab()), len(other.tokenizer.get_vocab())
        raise BadInput(
            field,
            f"the vocabulary of {other.folder} ({theirs} tokens) is not that of the policy {self.base.policy.folder} "
            f"({mine} tokens); token by token they cannot be combined",
        )

    @property
    def eager(self) -> list[Lane]:
        return [lane for lane in self.all if lane.eager]

    def encode(self, encoded: Sequence[Sequence[int]], asked: Sequence[Prompt] | None, limit: int) -> None:
        """Gives every lane its prompts: `encoded` those of the policy, `asked` what other models encode on their own
        (None: the policy's tokens). Raises BadInput where one leaves no room for `limit` tokens."""
        for lane in self.all:
            lane.prompts = [list(ids) for ids in encoded]
            if lane.own_tokens and asked is None:
                raise ValueError("a model with another vocabulary needs the prompts' text")
            if lane is not self.base and asked is not None:
                lane.prompts = [encode_prompt(lane.policy.tokenizer, prompt) for prompt in asked]
                lengths = {prompt.id: len(ids) for prompt, ids in zip(asked, lane.prompts, strict=True)}
                require_room(lengths, lane.policy.model, limit, "prompts")

    def fit(self, logits: Tensor) -> Tensor:
        """Logits (…, V') of another lane on the policy's device, as float32, cut or filled to the policy's V (models
        of one tokenizer may pad their vocabulary differently; the padding is never drawn)."""
        logits = logits.to(self.base.device, torch.float32)
        missing = self.base.policy.vocabulary - logits.shape[-1]
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits
