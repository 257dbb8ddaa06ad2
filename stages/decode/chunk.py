"""Chunk-level beam search (arXiv 2405.19262, 2409.17819): W beams, K successors each, compared every L tokens.

Rows come in groups of W·K, one group a response; all groups begin a chunk together. At its end, of each group:

- successors that ended (EOS, stopping string, limit) move to the pool and stop taking a place; the best hypothesis
  ever seen is what is returned;
- of the others, duplicates merged, the W best become beams and are copied K times: one index-select a cache.

The first chunk draws W·K successors of the prompt. `official` restores what public code does: ended beams stay among
the candidates, are cloned like the others, nothing is merged, and the best of the last beams is returned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from stages.decode.chunk_lane import ChunkLane, Written
from stages.decode.scorers import Row, Score
from stages.engine.engine import Engine, Response, text_of
from stages.engine.policy import Policy
from stages.engine.sampling import Sampling, uniforms
from stages.engine.steering import Choice, Terms


@dataclass
class Group:
    """The search for one response."""

    prompt: int
    sample: int
    ended: list[Row] = field(default_factory=list)
    """The pool; `official`: the ended beams, each as often as it was cloned."""
    tokens: int = 0
    flops: float = 0.0


Compared = tuple[list[Row], list[tuple[int, Row]]]
"""The pool, and (first of its K slots, beam) of those that go on."""


def compare_successors(
    ended: list[Row], rows: list[Row], beams: int, successors: int, over: Callable[[Row], bool]
) -> Compared:
    """Rows that are over join the pool; of the others, equal ones merged, the best `beams` go on, the first of equals.

    Example: W = 2, scores a .9 (over), b .8, b .8, c .1: a joins the pool, b and c go on.
    """
    distinct: dict[tuple[int, ...], Row] = {}
    for row in rows:
        if not over(row):
            distinct.setdefault(tuple(row.token_ids), row)
    best = sorted(distinct.values(), key=lambda row: -row.score)[:beams]
    pool = [*ended, *(row for row in rows if over(row))]
    return pool, [(place * successors, row) for place, row in enumerate(best)]


def compare_officially(
    ended: list[Row], rows: list[Row], beams: int, successors: int, over: Callable[[Row], bool]
) -> Compared:
    """As public code does: rows that are over compete for the places with the others, and are cloned there.

    Example: W = 2, scores a .9 (over), b .8, b .8, c .1: a and b go on, a as K clones; next time they fill W places if
    nothing scores above .9.
    """
    best = sorted([*ended, *rows], key=lambda row: -row.score)[:beams]
    clones = [row for row in best if over(row) for _ in range(successors)]
    return clones, [(place * successors, row) for place, row in enumerate(best) if not over(row)]


class ChunkEngine(Engine):
    """The loop of `Engine` over groups. Results do not depend on how many groups step together."""

    def __init__(
        self,
        policy: Policy,
        sampling: Sampling,
        terms: Terms,
        score: Score,
        *,
        beams: int,
        successors: int,
        chunk: int | None,
        length_normalised: bool = False,
        official: bool = False,
        seed: int,
        rows: int,
        progress: Callable[..., None] | None = None,
    ) -> None:
        super().__init__(policy, sampling, terms, seed=seed, rows=max(rows, beams * successors), progress=progress)
        self.score, self.beams, self.successors = score, beams, successors
        self.length = sampling.max_new_tokens if chunk is None else min(chunk, sampling.max_new_tokens)
        self.length_normalised, self.official = length_normalised, official
        self.keeps_last = score.keeps_last
        self.size = beams * successors

    def _least_rows(self) -> int:
        return self.size

    def _decode(self) -> None:
        self._begin()
        self.capacity = min(self.rows // self.size, len(self.pending)) * self.size
        for lane in self.lanes.all:
            lane.begin(self.capacity, self.sampling.max_new_tokens, max(self.steering.width, self.length))
        self.chunk_lanes = [ChunkLane(lane) for lane in self.lanes.all if not lane.eager]
        self.groups: dict[tuple[int, int], Group] = {}
        while self.groups or self.pending:
            self._enter_groups()
            self.gone: list[Response] = []
            for _ in range(self.length):
                if not self.live:
                    break
                self._step()
                self._tell()
            self._compare()

    def _enter_groups(self) -> None:
        """New groups take the places of those that are done, at the beginning of a chunk."""
        free = self.capacity // self.size - len(self.groups)
        entering = [self.pending.pop() for _ in range(min(free, len(self.pending)))]
        rows = []
        for prompt, sample in entering:
            self.groups[prompt, sample] = Group(prompt, sample)
            rows += [(prompt, sample * self.size + slot) for slot in range(self.size)]
        if rows:
            self._enter(rows)
            self.prefilled = {}
            for lane in self.chunk_lanes:
                lane.enter([prompt for prompt, _ in rows])
        for origin, row in enumerate(self.live):
            assert isinstance(row, Row)
            row.origin = origin

    def _response(self, prompt: int, sample: int) -> Row:
        return Row(prompt, sample // self.size, slot=sample % self.size)

    def _chosen(self, choice: Choice) -> None:
        self.score.chosen(self._rows(), choice)

    def _stepped(self) -> None:
        self.score.stepped(self._rows())

    def _rows(self) -> list[Row]:
        return [row for row in self.live if isinstance(row, Row)]

    def _left(self, rows: list[Response]) -> None:
        self.gone += rows

    def _compare(self) -> None:
        """The end of a chunk."""
        rows = sorted([*self._rows(), *(row for row in self.gone if isinstance(row, Row))], key=lambda row: row.origin)
        self._score(rows)
        place = {id(row): index for index, row in enumerate(self.live)}
        of: dict[tuple[int, int], list[Row]] = {key: [] for key in self.groups}
        for row in rows:
            of[row.prompt, row.sample].append(row)
        beams: list[tuple[Row, int]] = []  # (parent, slot)
        for key, group in list(self.groups.items()):
            group.tokens += sum(row.tokens for row in of[key])
            group.flops += sum(row.flops for row in of[key])
            compare = compare_officially if self.official else compare_successors
            group.ended, going = compare(group.ended, of[key], self.beams, self.successors, self._is_over)
            if going:
                beams += [(row, slot) for first, row in going for slot in range(first, first + self.successors)]
            else:
                self._finish(group)
                del self.groups[key]
        for lane in self.lanes.eager:
            lane.select([place[id(row)] for row, _ in beams], states=True)
        for lane in self.chunk_lanes:
            lane.select([row.origin for row, _ in beams])
        self.live = [
            replace(row, slot=slot, token_ids=list(row.token_ids), ratio=list(row.ratio), tokens=0, flops=0.0)
            for row, slot in beams
        ]
        limit = self.sampling.max_new_tokens
        drawn = [
            uniforms(self.seed, self.prompts[row.prompt][0], row.sample * self.size + row.slot, limit)
            for row in self._rows()
        ]
        self.draws = np.stack(drawn) if drawn else np.zeros((0, limit, 3))

    def _score(self, rows: list[Row]) -> None:
        """Gives every row of the chunk its score. Raises FloatingPointError where one is not finite."""
        for row in rows:
            row.text = text_of(self.policy.tokenizer, self.sampling, row.token_ids)
            row.ended = row.token_ids[-1] == self.policy.eos
        read = {}
        for chunk_lane in self.chunk_lanes:
            written = [Written(row.token_ids, row.text, row.ended) for row in rows]
            read[chunk_lane.lane] = found = chunk_lane.read(written)
            for row, tokens, flops in zip(rows, found.tokens, found.flops, strict=True):
                row.tokens += tokens
                row.flops += flops
        asked = [] if self.asked is None else [self.asked[row.prompt] for row in rows]
        for row, score in zip(rows, self.score.scores(rows, read, asked), strict=True):
            if not math.isfinite(score):
                raise FloatingPointError(
                    f"{self.score.name} is not finite after step {len(row.token_ids)} of prompt "
                    f"{self.prompts[row.prompt][0]!r}, sample {row.sample}"
                )
            row.score = score / len(row.token_ids) if self.length_normalised else score

    def _is_over(self, row: Row) -> bool:
        return row.finished or len(row.token_ids) >= self.sampling.max_new_tokens

    def _finish(self, group: Group) -> None:
        best = max(group.ended, key=lambda row: row.score)
        several = self.size > 1
        self.done.append(
            replace(
                best,
                sample=group.sample,
                logprob=math.nan if several else best.logprob,
                tokens=group.tokens,
                flops=group.flops,
            )
        )
