"""A lane that is only asked at the end of a chunk: it forwards all new tokens of a row at once.

With the policy's vocabulary the new tokens are those that were drawn. With another one the response is read as text:
it is encoded anew, and what the cache holds is kept up to the longest common prefix (less one token, whose logits and
state are needed again).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stages.decode.parts import ChunkStates
from stages.engine.distribution import token_logprob
from stages.engine.lane import Lane
from stages.engine.prompts import context_of
from stages.errors import BadInput


class Written(NamedTuple):
    """A row of the chunk: what has been drawn since its prompt."""

    token_ids: list[int]
    text: str
    ended: bool
    """By EOS."""


class ChunkLane:
    """Rows are numbered as at the beginning of the chunk; `select` takes those that go on."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.prompts: list[int] = []
        self.held: list[list[int]] = []
        """Token ids in the cache, a row, prompt included."""
        self.logprobs: list[list[float]] = []
        """Of the response's tokens in the cache, a row."""

    def enter(self, prompts: Sequence[int]) -> None:
        """New rows have entered the lane's cache."""
        self.prompts += prompts
        self.held += [list(self.lane.prompts[prompt]) for prompt in prompts]
        self.logprobs += [[] for _ in prompts]

    def forward(self, rows: Sequence[Written]) -> ChunkStates:
        """Forwards what is new in every row; row i of the cache belongs to rows[i]. Raises BadInput where a row does
        not fit the lane's context."""
        lane, cache, device = self.lane, self.lane.cache, self.lane.device
        full = [self._tokens(row, prompt) for row, prompt in zip(rows, self.prompts, strict=True)]
        self._require_room(full)
        kept = [self._kept(ids, held) for ids, held in zip(full, self.held, strict=True)]
        counts = [len(ids) - keep for ids, keep in zip(full, kept, strict=True)]
        dropped = [len(held) - keep for held, keep in zip(self.held, kept, strict=True)]
        width = max(counts)
        if cache.length + width > cache.capacity:
            cache.settle(cache.longest())
            cache.grow(cache.length + width)
        padded = [[0] * (width - count) + ids[keep:] for ids, keep, count in zip(full, kept, counts, strict=True)]
        ids = torch.tensor(padded, device=device)  # (N, F)
        number = torch.tensor(counts, device=device)  # (N,)
        positions, mask = cache.sequences(torch.tensor(dropped, device=device), number, width)
        out = lane.lm.forward(ids, positions, mask, cache, lane.taps)
        self._ends = [cache.length - drop for drop in dropped]
        self._gaps = [width - count + drop for count, drop in zip(counts, dropped, strict=True)]
        cache.append(width)
        before = lane.states
        if width > 1:
            several = (number > 1)[:, None]
            before = tuple(torch.where(several, new[:, -2], old) for new, old in zip(out.states, before, strict=True))
        if lane.wants_logits:
            self._extend_logprobs(full, kept, ids, out.last)
            lane.logits = lane.lm.logits(out.last[:, -1])
        lane.states = tuple(states[:, -1] for states in out.states)
        self.held = full
        flops = [lane.sequence_flops(count, keep, count) for count, keep in zip(counts, kept, strict=True)]
        last = torch.tensor([row[-1] for row in full], device=device)
        sums = [sum(row) for row in self.logprobs] if lane.wants_logits else []
        return ChunkStates(lane.states, before, last, sums, counts, flops)

    def _tokens(self, row: Written, prompt: int) -> list[int]:
        """The row in the lane's own tokens, prompt included."""
        ids = self.lane.prompts[prompt]
        if not self.lane.own_tokens:
            return [*ids, *row.token_ids]
        tokenizer = self.lane.lm.tokenizer
        response = list(tokenizer(row.text, add_special_tokens=False)["input_ids"])
        return [*ids, *response, *([self.lane.lm.eos] if row.ended else [])]

    def _require_room(self, full: list[list[int]]) -> None:
        """The limit of new tokens is the policy's: the same text may be more tokens of another vocabulary."""
        lm, context = self.lane.lm, context_of(self.lane.lm.model)
        row = max(range(len(full)), key=lambda row: len(full[row]))
        if context is not None and len(full[row]) > context:
            prompt = len(self.lane.prompts[self.prompts[row]])
            raise BadInput(
                lm.field,
                f"a prompt of {prompt} tokens and the {len(full[row]) - prompt} that {lm.folder} makes of a "
                f"response's text exceed its context of {context}; shorten the prompts or set a smaller max_new_tokens",
            )

    def _kept(self, ids: list[int], held: list[int]) -> int:
        """How many of the tokens in the cache stay."""
        if not self.lane.own_tokens:
            return len(held)
        common = 0
        while common < min(len(ids), len(held)) and ids[common] == held[common]:
            common += 1
        return max(0, min(common, len(ids) - 1) - 1)

    def _extend_logprobs(self, full: list[list[int]], kept: list[int], ids: Tensor, last: Tensor) -> None:
        """Log-probabilities of the fed tokens (N, F), column by column: the logits of all at once would be large."""
        assert self.lane.logits is not None
        rows, width = ids.shape
        columns = []  # (N,) each: of column f + 1 from the logits of column f
        for column in range(width - 1):
            columns.append(token_logprob(self.lane.lm.logits(last[:, column]), ids[:, column + 1]))
        following = torch.stack([torch.zeros(rows, dtype=torch.float64, device=ids.device), *columns], 1).tolist()
        begin = torch.tensor([width - len(row) + keep for row, keep in zip(full, kept, strict=True)], device=ids.device)
        first = token_logprob(self.lane.logits, ids.gather(1, begin[:, None])[:, 0]).tolist()
        for row, keep in enumerate(kept):
            prompt = len(self.lane.prompts[self.prompts[row]])
            found = following[row][int(begin[row]) :]
            found[0] = first[row]
            if self.lane.own_tokens:  # the first fed token was known before; its logits are those of another prefix
                found[0] = self.logprobs[row][keep - prompt] if keep >= prompt else 0.0
            self.logprobs[row] = self.logprobs[row][: max(0, keep - prompt)] + found[max(0, prompt - keep) :]

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes what row rows[i] was, its gap closed."""
        self.lane.select(rows, states=True)
        for to, source in enumerate(rows):
            if self._gaps[source]:
                self.lane.cache.slide(to, self._ends[source], self._gaps[source])
        self.prompts = [self.prompts[row] for row in rows]
        self.held = [list(self.held[row]) for row in rows]
        self.logprobs = [list(self.logprobs[row]) for row in rows]
