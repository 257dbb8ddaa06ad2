"""The models that decode together, each in its lane: its own cache and its newest states, all with the same rows.

Lane 0 is the policy. A guide or a scorer asks `Lanes.join` for its model; the same folder asked for twice is one lane.
Lanes have prompts of their own (each model's chat template) but share the response's tokens, hence the vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stages.decode.cache import RowCache
from stages.decode.policy import CausalLM, Forward, Policy
from stages.errors import BadInput
from stages.language_model import encode_prompt, require_room
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
        self.layers: list[int] = []
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

    def reads(self, layer: int) -> int:
        """Asks for the states of a hidden layer; returns their place in `read`."""
        if layer not in self.layers:
            self.layers.append(layer)
        return self.layers.index(layer)

    def begin(self, rows: int, limit: int, width: int) -> None:
        """An empty cache for `rows` rows of up to `limit` tokens beyond a prompt, F = `width` of them in a forward."""
        longest = max((len(ids) for ids in self.prompts), default=0)
        self.cache = self.policy.cache(rows, longest + limit + width + SLACK)
        self.logits, self.read = None, ()

    def prefill(self, wanted: Sequence[int]) -> list[Ready]:
        cache, out = self.policy.prefill([self.prompts[prompt] for prompt in wanted], self.layers)
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
        read = [[prompt.read[n].expand(count, -1) for prompt, count in ready] for n in range(len(self.layers))]
        self.read = tuple(
            torch.cat(states if old == 0 else [self.read[n], *states]) for n, states in enumerate(read)
        )  # (R, D) each

    def forward(self, ids: Tensor) -> Forward:
        """F alternative next tokens (R, F) of every row; `cache.keep` then chooses."""
        if self.cache.length + ids.shape[1] > self.cache.capacity:
            self.cache.settle(self.cache.longest())
        return self.policy.step(ids.to(self.device), self.cache, self.layers)

    def take(self, newest: Forward) -> None:
        """The states (R, D) of every row's newest token."""
        self.logits = self.policy.logits(newest.last) if self.wants_logits else None  # (R, V)
        self.read = newest.read

    def select(self, rows: Sequence[int], states: bool) -> None:
        """Row i becomes what row rows[i] was; with `states` their newest states too."""
        self.cache.select(rows)
        if states:
            self.logits = None if self.logits is None else self.logits[list(rows)]
            self.read = tuple(state[list(rows)] for state in self.read)

    def step_flops(self, width: int) -> list[float]:
        """FLOPs of `forward` for each row."""
        spans = (self.cache.length + 1 - self.cache.starts[: self.cache.active]).tolist()
        return [self.policy.flops(width, width * span, 0) for span in spans]

    def prompt_flops(self, prompt: int) -> float:
        length = len(self.prompts[prompt])
        return self.policy.flops(length, length * (length + 1) // 2, int(self.wants_logits))


class Lanes:
    """The policy and the models that step beside it."""

    def __init__(self, policy: Policy) -> None:
        self.base = Lane(policy)
        self.base.wants_logits = self.base.eager = True
        self.all = [self.base]
        self._known: dict[tuple[Path, str | None], Lane] = {}

    def join(self, model: CausalLM | None, field: str, *, eager: bool) -> Lane:
        """The lane of a model; the policy's own for null and for the policy's folder. `field` is the model's key.

        Where every token is forwarded as it is drawn (`eager`) the vocabulary must be the policy's; what only scores
        chunks reads text where it is not. Raises BadInput where the model cannot be loaded or has another vocabulary:
        both are named.
        """
        if model is None or Path(model.folder).resolve() == Path(self.base.policy.folder).resolve():
            return self.base
        key = (Path(model.folder).resolve(), model.quantisation)
        if key not in self._known:
            lane = Lane(model.load(str(self.base.device), field))
            mine, theirs = self.base.policy.tokenizer, lane.policy.tokenizer
            lane.own_tokens = mine.get_vocab() != theirs.get_vocab()
            self._known[key] = lane
            self.all.append(lane)
        lane = self._known[key]
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
