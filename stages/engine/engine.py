"""The one loop that decodes: rows enter, step together, end at EOS or the limit, and others take their places.

A row is one sample of one prompt. At most `rows` of them step together; with candidates each step forwards rows·F
tokens (F = k candidates and one from outside them).
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from stages.engine.batch import Batch, Nobody, Watcher
from stages.engine.lanes import Lanes
from stages.engine.response import Response, text_of
from stages.engine.sampling import Draw
from stages.engine.steering import Steering, Terms
from stages.records import Prompt

REFILL_SHARE = 4
"""New rows enter when a quarter of the places is free: a prefill a finished row would cost more than it saves."""
Pending = list[Response]
"""Rows that have drawn nothing yet, the next one last."""


class Schedule(Protocol):
    """When rows enter, step and leave. `Refill`, or a search by chunks (`stages/decode/chunk.py`)."""

    least: int
    """Rows that have to step together."""

    def decode(self, engine: "Engine", pending: Pending, rows: int) -> Iterator[list[Any]]:
        """Decodes all that is pending, `rows` at a time. After every step it gives the responses that are done."""
        ...


class Refill:
    """Rows enter where others have left."""

    least = 1

    def decode(self, engine: "Engine", pending: Pending, rows: int) -> Iterator[list[Response]]:
        batch = engine.open(min(rows, len(pending)))
        while batch.rows or pending:
            free = batch.capacity - len(batch.rows)
            if pending and (not batch.rows or free * REFILL_SHARE >= rows):
                entering = [pending.pop() for _ in range(min(free, len(pending)))]
                batch.enter(entering, soon=[row.prompt for row in pending[-1:]])
            yield batch.step()


class Engine:
    """Decodes with the policy of `lanes` under a guide's terms. Results do not depend on `draw.rows` beyond
    floating-point rounding."""

    def __init__(self, lanes: Lanes, draw: Draw, terms: Terms | None = None) -> None:
        self.lanes, self.draw = lanes, draw
        self.steering = Steering(terms or Terms(), lanes, draw.sampling)
        self.rows = max(1, draw.rows)
        self.batch: Batch[Any] | None = None

    @torch.inference_mode()
    def run(
        self,
        prompts: Sequence[tuple[str, Sequence[int]]],
        samples: int,
        asked: Sequence[Prompt] | None = None,
        *,
        betas: Sequence[Sequence[float]] | None = None,
        schedule: Schedule | None = None,
    ) -> list[Any]:
        """Decodes samples 0 … samples − 1 of each (prompt id, token ids); ordered by prompt, then sample.

        `asked`, the same prompts: needed where another model encodes them on its own. `betas`: for each prompt its own
        strengths (`Steering.betas`); None: the guide's. Out of memory halves the rows that step together and goes on
        with those that were not done. Raises what `Batch.step` and `Lanes.encode` raise.
        """
        begun, told = time.perf_counter(), 0.0
        schedule = schedule or Refill()
        self.rows, self.asked = max(self.rows, schedule.least), asked
        self.lanes.encode(prompts, asked, self.draw.sampling.max_new_tokens)
        wanted = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)]
        done: dict[tuple[int, int], Any] = {}
        while missing := [pair for pair in wanted if pair not in done]:
            pending = [Response(*pair, betas=None if betas is None else tuple(betas[pair[0]])) for pair in missing]
            try:
                for ended in schedule.decode(self, pending[::-1], self.rows):
                    done |= {(response.prompt, response.sample): response for response in ended}
                    if time.perf_counter() - told > 0.5:
                        told = time.perf_counter()
                        self._tell(len(done), len(wanted))
            except (RuntimeError, MemoryError) as error:
                self._take_fewer_rows(error, schedule.least)
        seconds = time.perf_counter() - begun
        responses = [done[pair] for pair in wanted]
        for response in responses:
            response.text = text_of(self.lanes.policy.lm.tokenizer, self.draw.sampling, response.token_ids)
            response.seconds = seconds / len(wanted)
        self._tell(len(done), len(wanted))
        return responses

    def open(self, capacity: int, width: int | None = None, watcher: Watcher[Any] | None = None) -> Batch[Any]:
        """An empty batch over the lanes, in place of the one before. `width`: where more tokens a row are forwarded at
        once than a step needs."""
        width = self.steering.width if width is None else max(width, self.steering.width)
        self.batch = Batch(self.lanes, self.steering, self.draw, capacity, width, watcher or Nobody())
        return self.batch

    def _take_fewer_rows(self, error: BaseException, least: int) -> None:
        if not out_of_memory(error) or self.rows <= least:
            raise error
        self.rows = max(least, self.rows // 2)
        warnings.warn(f"out of memory: decoding goes on with {self.rows} rows at a time", stacklevel=3)

    def _tell(self, done: int, total: int) -> None:
        live = len(self.batch.rows) if self.batch else 0
        if self.draw.progress is not None:
            self.draw.progress(done, total, f"{live} rows decoding" if live else "decoded")


def out_of_memory(error: BaseException) -> bool:
    """Whether a device has refused memory (torch's CPU allocator raises a plain RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
