"""A preallocated key/value cache whose rows share one length: candidates in, the chosen one kept, no concatenation.

Row r's tokens lie at slots [starts[r], length); what is left of them is padding. Positions are counted from the row's
own start and are baked into the keys, so moving a row to other slots changes nothing. A step writes F tokens a row at
slots [length, length + F), all at the same position: each sees its row's prefix and itself. `keep` then leaves one.
Layers above the split are given that one alone, afterwards (`newest`). Layers beside the trunk's own, a branch's, share
rows and slots.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Mask = Tensor | dict[str, Tensor]


class RowLayer(CacheLayerMixin):
    """One attention layer's keys and values, (rows, heads, capacity, head size). The owner moves its cursor."""

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()
        self.rows, self.capacity = rows, capacity
        self.length = 0

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Keys and values, after the first forward."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        heads, size, value_size = key_states.shape[1], key_states.shape[3], value_states.shape[3]
        # Zeros, not empty: padding is masked with a finite minimum, and NaN left in memory would shine through it.
        self.keys = key_states.new_zeros(self.rows, heads, self.capacity, size)
        self.values = value_states.new_zeros(self.rows, heads, self.capacity, value_size)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes (R, heads, F, head size) behind the prefix; returns views of prefix and new tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.tensors
        rows, end = key_states.shape[0], self.length + key_states.shape[2]
        keys[:rows, :, self.length : end] = key_states
        values[:rows, :, self.length : end] = value_states
        return keys[:rows, :, :end], values[:rows, :, :end]

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        return self.capacity


class RowCache(Cache):
    """Keys, values, masks and positions of up to `rows` rows. Nothing here grows: `capacity` slots a row."""

    layers: list[RowLayer]
    """The trunk's first `depth`, then those of the branches."""

    def __init__(
        self,
        config: "PreTrainedConfig",
        *,
        rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        depth: int | None = None,
        split: int | None = None,
        branches: Sequence[tuple[int, int]] = (),
    ) -> None:
        """`depth`: how many of the trunk's layers keep anything (default: all); `split`: how many see all of a step's
        F tokens, the others see the one that is kept; `branches`: (first, end) of layers beside the trunk's own."""
        self.depth: int = config.num_hidden_layers if depth is None else depth
        self.split: int = self.depth if split is None else split
        own = [RowLayer(rows, capacity) for _ in range(self.depth)]
        tops = [[RowLayer(rows, capacity) for _ in range(first, end)] for first, end in branches]
        super().__init__(layers=[*own, *(layer for top in tops for layer in top)])
        self.branches = [Cache(layers=[*own[:first], *top]) for (first, _), top in zip(branches, tops, strict=True)]
        """Of each branch, its layers numbered as the trunk's; the same rows and slots."""
        self.capacity = capacity
        self.active = 0
        self.length = 0
        self.starts = torch.zeros(rows, dtype=torch.long, device=device)  # (rows,)
        self.minimum = torch.finfo(dtype).min
        self.padding = torch.zeros(rows, capacity, dtype=dtype, device=device)  # additive, 0 or the minimum
        self.slots = torch.arange(capacity, device=device)
        kinds = sorted(set(getattr(config, "layer_types", None) or ()))
        slides = "sliding_attention" in kinds or not kinds
        self.window: int | None = getattr(config, "sliding_window", None) if slides else None
        self.kinds = kinds if "sliding_attention" in kinds else None

    def _move(self, length: int, active: int) -> None:
        self.length, self.active = length, active
        for layer in self.layers:
            layer.length = length

    def _mark(self, rows: slice | Tensor) -> None:
        """Writes the padding of these rows anew from their starts."""
        pad = self.slots < self.starts[rows, None]  # (rows, capacity)
        self.padding[rows] = pad.to(self.padding.dtype) * self.minimum

    # what one forward needs

    def positions(self, width: int) -> Tensor:
        """(R, F) positions of the next F tokens: all the same, the row's own length."""
        return (self.length - self.starts[: self.active])[:, None].expand(-1, width)

    @contextmanager
    def newest(self) -> Iterator[tuple[Tensor, Mask]]:
        """Positions (R, 1) and mask of the tokens just kept, which the layers above the split have not seen yet: in
        the block these write at the tokens' own slot."""
        self._move(self.length - 1, self.active)
        yield self.positions(1), self.mask(1)
        self._move(self.length + 1, self.active)

    def mask(self, width: int) -> Mask:
        """(R, 1, F, length + F) additive mask: each new token sees its row's prefix and itself.

        Sliding layers need their window inside the mask, as a 4-D mask is used as given: then one mask a layer type.
        """
        prefix = self.padding[: self.active, None, None, : self.length]  # (R, 1, 1, length)
        alone = torch.full((width, width), self.minimum, dtype=prefix.dtype, device=prefix.device).fill_diagonal_(0.0)
        full = torch.cat(
            [prefix.expand(-1, 1, width, -1), alone.expand(self.active, 1, width, width)], dim=3
        )  # (R, 1, F, length + F)
        return self._windowed(full, full.new_tensor(self.length).expand(width))

    def prompt_mask(self) -> Mask:
        """(R, 1, T, T) additive causal mask over left-padded prompts that fill the cache's `length` slots."""
        size = self.length
        causal = torch.full((size, size), self.minimum, dtype=self.padding.dtype, device=self.padding.device).triu_(1)
        full = torch.minimum(self.padding[: self.active, None, None, :size], causal)
        return self._windowed(full, self.slots[:size])

    def _windowed(self, full: Tensor, query_slots: Tensor) -> Mask:
        if self.window is None:
            return full if self.kinds is None else dict.fromkeys(self.kinds, full)
        keys = self.slots[: full.shape[3]].clamp(max=int(query_slots[-1]))  # all new tokens share one position
        far = query_slots[:, None] - keys[None, :] >= self.window  # (F, S)
        sliding = full.masked_fill(far, self.minimum)
        if self.kinds is None:
            return sliding
        return {kind: sliding if kind == "sliding_attention" else full for kind in self.kinds}

    def sequences(self, cropped: Tensor, counts: Tensor, width: int) -> tuple[Tensor, Mask]:
        """Positions (R, F) and mask (R, 1, F, length + F) of `counts` (R,) new tokens a row, one after the other.

        They stand at the end of F slots, what is left of them is padding; of what the cache holds the last `cropped`
        (R,) tokens a row no longer count.
        """
        starts, end = self.starts[: self.active], self.length + width
        slots = self.slots[None, :end]  # (1, S)
        kept = self.length - cropped - starts  # (R,) tokens that stay
        first = end - counts  # (R,) slot of the first new token
        old = (slots - starts[:, None]).masked_fill(
            (slots < starts[:, None]) | (slots >= (self.length - cropped)[:, None]), -1
        )
        new = (slots - first[:, None] + kept[:, None]).masked_fill(slots < first[:, None], -1)
        keys = torch.where(slots < self.length, old, new)  # (R, S) position of each slot, −1: nothing there
        queries = keys[:, self.length :]  # (R, F)
        seen = (keys >= 0)[:, None] & (keys[:, None] <= queries[:, :, None])  # (R, F, S)
        near = seen if self.window is None else seen & (queries[:, :, None] - keys[:, None] < self.window)
        full, sliding = ((~m)[:, None].to(self.padding.dtype) * self.minimum for m in (seen, near))
        positions = queries.clamp(min=0)
        if self.kinds is None:
            return positions, sliding
        return positions, {kind: sliding if kind == "sliding_attention" else full for kind in self.kinds}

    # what changes the rows

    def append(self, width: int) -> None:
        """The F new tokens of `sequences` have gone through the model; gaps are closed by `slide`."""
        self._move(self.length + width, self.active)

    def slide(self, row: int, end: int, by: int) -> None:
        """Moves a row's tokens [start, end) to the right by `by` slots, over a gap or cropped tokens."""
        begin = int(self.starts[row])
        for layer in self.layers:
            for tensor in layer.tensors:  # the clone: source and target overlap
                tensor[row, :, begin + by : end + by] = tensor[row, :, begin:end].clone()
        self.starts[row] += by
        self._mark(slice(row, row + 1))

    def grow(self, capacity: int) -> None:
        """Room for at least `capacity` slots."""
        if (more := capacity - self.capacity) <= 0:
            return
        more = max(more, self.capacity // 4)
        for layer in self.layers:
            layer.capacity += more
            if layer.is_initialized:
                keys, values = layer.tensors
                layer.keys = torch.nn.functional.pad(keys, (0, 0, 0, more))
                layer.values = torch.nn.functional.pad(values, (0, 0, 0, more))
        self.capacity += more
        self.slots = torch.arange(self.capacity, device=self.slots.device)
        self.padding = torch.nn.functional.pad(self.padding, (0, more))

    def begin(self, lengths: Sequence[int]) -> None:
        """Empties the cache for prompts of these lengths, left-padded to the longest."""
        self._move(max(lengths), len(lengths))
        for layer in self.layers:  # until the prompts are written (`prefilled`) the layers stand at slot 0
            layer.length = 0
        self.starts[: self.active] = self.length - torch.tensor(lengths, device=self.starts.device)
        self._mark(slice(0, self.active))

    def prefilled(self) -> None:
        """The prompts of `begin` have gone through the model."""
        self._move(self.length, self.active)

    def keep(self, chosen: Tensor) -> None:
        """Of the F tokens just written keeps the `chosen` (R,) one a row, at slot `length`; the rest are dropped."""
        rows = torch.arange(self.active, device=chosen.device)
        source = chosen + self.length
        for layer in [*self.layers[: self.split], *self.layers[self.depth :]]:
            for tensor in layer.tensors:
                tensor[: self.active, :, self.length] = tensor[rows, :, source]
        self._move(self.length + 1, self.active)

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes what row rows[i] was; rows that stay in place are not copied."""
        moved = [(to, source) for to, source in enumerate(rows) if to != source]
        if moved:
            device = self.starts.device
            to, source = (torch.tensor(column, device=device) for column in zip(*moved, strict=True))
            for layer in self.layers:
                for tensor in layer.tensors:
                    tensor[to, :, : self.length] = tensor[source, :, : self.length]
            self.starts[to] = self.starts[source]
            self.padding[to] = self.padding[source]
        self._move(self.length, len(rows))

    def longest(self) -> int:
        """Tokens of the longest row, prompt included."""
        return self.length - int(self.starts[: self.active].min()) if self.active else 0

    def settle(self, longest: int) -> None:
        """Moves all rows so that they end at slot `longest`, which is at least their own length.

        To the right where a longer prompt is to enter, to the left where the buffer is full of padding.
        """
        shift = longest - self.length
        if self.active == 0 or shift == 0:
            self._move(longest, self.active)
            return
        old = slice(max(0, -shift), self.length)
        new = slice(old.start + shift, longest)
        for layer in self.layers:
            for tensor in layer.tensors:  # the clone: source and target overlap
                tensor[: self.active, :, new] = tensor[: self.active, :, old].clone()
        self.starts[: self.active] += shift
        self._move(longest, self.active)
        self._mark(slice(0, self.active))

    def enter(self, source: "RowCache", rows: Sequence[int]) -> None:
        """Appends rows that `source` has prefilled (one of its rows may enter many times), ending at `length`."""
        picked = torch.tensor(rows, device=self.starts.device)
        first, end = self.active, self.active + len(rows)
        left = self.length - source.length  # slot where the source's slot 0 goes; below 0 lies its left padding
        space, taken = slice(max(0, left), self.length), slice(max(0, -left), source.length)
        for mine, theirs in zip(self.layers, source.layers, strict=True):
            if not mine.is_initialized:
                mine.lazy_initialization(*theirs.tensors)
            for tensor, prompts in zip(mine.tensors, theirs.tensors, strict=True):
                tensor[first:end, :, space] = prompts[picked][:, :, taken]
        self.starts[first:end] = source.starts[picked] + left
        self._move(self.length, end)
        self._mark(slice(first, end))
