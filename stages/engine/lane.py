"""One model that steps with others: its own cache and its newest states."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stages.engine.cache import RowCache
from stages.engine.loaded import Forward, LoadedLM
from stages.engine.sections import Tap

SLACK = 16
"""Slots beyond the longest row: how many steps pass between two moves of a cache's buffer."""


class Ready(NamedTuple):
    """A prompt in the cache of its prefill, until all its rows have entered."""

    cache: RowCache
    row: int
    logits: Tensor | None
    """(V,)"""
    states: tuple[Tensor, ...]
    """(D,) each: states of the prompt's last token."""


class Lane:
    """One model, stepped with the others. Row i of its cache is row i of every eager lane."""

    def __init__(self, lm: LoadedLM) -> None:
        self.lm = lm
        self.taps: list[int | Tap] = []
        self.wants_logits = False
        self.eager = False
        """Forwards every token as it is drawn; else a whole chunk at once (`chunk_lane.py`)."""
        self.own_tokens = False
        """Has another vocabulary: reads responses as text."""
        self.prompts: list[list[int]] = []
        self.logits: Tensor | None = None  # (R, V)
        self.states: tuple[Tensor, ...] = ()  # (R, D) each

    @property
    def device(self) -> torch.device:
        return self.lm.device

    def tap(self, tap: int | Tap) -> int:
        """Asks for a hidden state, by its layer or of a branch; returns its place in `states`."""
        if tap not in self.taps:
            self.taps.append(tap)
        return self.taps.index(tap)

    def begin(self, rows: int, limit: int, width: int) -> None:
        """An empty cache for `rows` rows of up to `limit` tokens beyond a prompt, F = `width` of them in a forward."""
        longest = max((len(ids) for ids in self.prompts), default=0)
        self.room = limit + width + SLACK
        self.cache = self.lm.cache(rows, longest + self.room, self.taps, logits=self.wants_logits)
        self.logits, self.states = None, ()

    def prefill(self, wanted: Sequence[int]) -> list[Ready]:
        prompts = [self.prompts[prompt] for prompt in wanted]
        cache, out = self.lm.prefill(prompts, self.taps, logits=self.wants_logits)
        logits = self.lm.logits(out.last[:, 0]) if self.wants_logits else None  # (R, V)
        return [
            Ready(cache, row, None if logits is None else logits[row], tuple(states[row, 0] for states in out.states))
            for row in range(len(wanted))
        ]

    def enter(self, ready: Sequence[tuple[Ready, int]], longest: int) -> None:
        """Appends `count` rows of each (prefilled prompt, count); `longest` is the longest prompt among them."""
        longest = max(self.cache.longest(), longest)
        self.cache.grow(longest + self.room)  # prompts may have come since `begin`
        self.cache.settle(longest)
        old = self.cache.active
        for prompt, count in ready:
            self.cache.enter(prompt.cache, [prompt.row] * count)
        if self.wants_logits:
            logits = [prompt.logits.expand(count, -1) for prompt, count in ready if prompt.logits is not None]
            self.logits = torch.cat(logits if self.logits is None or old == 0 else [self.logits, *logits])
        entering = [[prompt.states[n].expand(count, -1) for prompt, count in ready] for n in range(len(self.taps))]
        self.states = tuple(
            torch.cat(states if old == 0 else [self.states[n], *states]) for n, states in enumerate(entering)
        )  # (R, D) each

    def forward(self, ids: Tensor) -> Forward:
        """F alternative next tokens (R, F) of every row; `cache.keep` then chooses."""
        if self.cache.length + ids.shape[1] > self.cache.capacity:
            self.cache.settle(self.cache.longest())
        return self.lm.step(ids.to(self.device), self.cache, self.taps)

    def take(self, newest: Forward) -> list[float]:
        """The states (R, D) of every row's newest token, on to its logits where they are wanted. Returns the FLOPs of
        that for each row."""
        self.states, self.logits = newest.states, None
        if not self.wants_logits:
            return [0.0] * self.cache.active
        last, above = newest.last, self.lm.layers - newest.reached
        if above:
            last = self.lm.finish(last, newest.reached, self.cache)
        self.logits = self.lm.logits(last)  # (R, V)
        return [self.lm.flops(min(above, 1), span, 1, first=newest.reached) for span in self._spans(0)]

    def select(self, rows: Sequence[int], states: bool) -> None:
        """Row i becomes what row rows[i] was; with `states` their newest states too."""
        self.cache.select(rows)
        if states:
            self.logits = None if self.logits is None else self.logits[list(rows)]
            self.states = tuple(state[list(rows)] for state in self.states)

    def step_flops(self, width: int) -> list[float]:
        """FLOPs of `forward` for each row."""
        end = self.cache.split if width > 1 else self.cache.depth
        return [self.lm.flops(width, width * span, 0, self.taps, end=end) for span in self._spans(1)]

    def sequence_flops(self, tokens: int, before: int, logits: int) -> float:
        """FLOPs of `tokens` one after the other behind `before` others; `logits` of them get logits."""
        end = self.lm.layers if self.wants_logits else self.lm.lowest(self.taps)
        attended = tokens * before + tokens * (tokens + 1) // 2
        return self.lm.flops(tokens, attended, logits if self.wants_logits else 0, self.taps, end=end)

    def prompt_flops(self, prompt: int) -> float:
        return self.sequence_flops(len(self.prompts[prompt]), 0, 1)

    def _spans(self, more: int) -> list[int]:
        """Tokens of every row that a token sees, itself included, when `more` are behind what the cache holds."""
        return (self.cache.length + more - self.cache.starts[: self.cache.active]).tolist()
