"""Chunk-level beam search (arXiv 2405.19262, 2409.17819): W beams, K successors each, compared every L tokens.

Rows come in groups of W·K, one group a response; all groups begin a chunk together. At its end, of each group:

- successors that ended (EOS, stopping string, limit) move to the pool and stop taking a place; the best hypothesis
  ever seen is what is returned;
- of the others, duplicates merged, the W best become beams and are copied K times: one index-select a cache.

The first chunk draws W·K successors of the prompt. `official` restores what public code does: ended beams stay among
the candidates, are cloned like the others, nothing is merged, and the best of the last beams is returned.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from stages.decode.chunk_lane import ChunkLane, Written
from stages.decode.parts import OpenScorer, Successor
from stages.engine.batch import Batch
from stages.engine.engine import Engine, Pending
from stages.engine.response import Response, text_of

Compared = tuple[list[Successor], list[tuple[int, Successor]]]
"""The pool, and (first of its K slots, beam) of those that go on."""


def compare_successors(
    ended: list[Successor], rows: list[Successor], beams: int, successors: int, over: Callable[[Successor], bool]
) -> Compared:
    """Rows that are over join the pool; of the others, equal ones merged, the best `beams` go on, the first of equals.

    Example: W = 2, scores a .9 (over), b .8, b .8, c .1: a joins the pool, b and c go on.
    """
    distinct: dict[tuple[int, ...], Successor] = {}
    for row in rows:
        if not over(row):
            distinct.setdefault(tuple(row.token_ids), row)
    best = sorted(distinct.values(), key=lambda row: -row.score)[:beams]
    pool = [*ended, *(row for row in rows if over(row))]
    return pool, [(place * successors, row) for place, row in enumerate(best)]


def compare_officially(
    ended: list[Successor], rows: list[Successor], beams: int, successors: int, over: Callable[[Successor], bool]
) -> Compared:
    """As public code does: rows that are over compete for the places with the others, and are cloned there.

    Example: W = 2, scores a .9 (over), b .8, b .8, c .1: a and b go on, a as K clones; next time they fill W places if
    nothing scores above .9.
    """
    best = sorted([*ended, *rows], key=lambda row: -row.score)[:beams]
    clones = [row for row in best if over(row) for _ in range(successors)]
    return clones, [(place * successors, row) for place, row in enumerate(best) if not over(row)]


@dataclass
class Group:
    """The search for one response."""

    asked: Response
    """The response as it was pending."""
    ended: list[Successor] = field(default_factory=list)
    """The pool; `official`: the ended beams, each as often as it was cloned."""
    tokens: int = 0
    flops: float = 0.0

    def best(self, several: bool) -> Successor:
        """The hypothesis with the highest score, charged with all of the group's work. `several`: whether it was chosen
        among others, so that nobody knows its probability."""
        best = max(self.ended, key=lambda row: row.score)
        logprob = math.nan if several else best.logprob
        return replace(best, logprob=logprob, tokens=self.tokens, flops=self.flops)


class Chunks:
    """The search as a schedule of the engine. Results do not depend on how many groups step together."""

    def __init__(
        self,
        scorer: OpenScorer,
        *,
        beams: int,
        successors: int,
        chunk: int | None,
        length_normalised: bool = False,
        official: bool = False,
    ) -> None:
        self.scorer, self.beams, self.successors, self.chunk = scorer, beams, successors, chunk
        self.length_normalised = length_normalised
        self.compare = compare_officially if official else compare_successors
        self.least = beams * successors

    def decode(self, engine: Engine, pending: Pending, rows: int) -> Iterator[list[Successor]]:
        yield from ChunkedBatch(self, engine, min(rows // self.least, len(pending))).decode(pending)


class ChunkedBatch:
    """Up to `places` groups that step together, chunk by chunk."""

    def __init__(self, search: Chunks, engine: Engine, places: int) -> None:
        limit = engine.draw.sampling.max_new_tokens
        self.search, self.engine, self.places = search, engine, places
        self.size = search.least
        self.length = limit if search.chunk is None else min(search.chunk, limit)
        self.batch: Batch[Successor] = engine.open(places * self.size, self.length, search.scorer)
        self.lanes = [ChunkLane(lane) for lane in engine.lanes.all if not lane.eager]
        self.groups: dict[tuple[int, int], Group] = {}

    def decode(self, pending: Pending) -> Iterator[list[Successor]]:
        """All groups that are pending; after every step the responses that are done."""
        while self.groups or pending:
            self._enter([pending.pop() for _ in range(min(self.places - len(self.groups), len(pending)))])
            ended: list[Successor] = []
            for _ in range(self.length):
                if not self.batch.rows:
                    break
                ended += self.batch.step()
                yield []
            yield self._compare(sorted([*self.batch.rows, *ended], key=lambda row: row.origin))

    def _enter(self, asked: list[Response]) -> None:
        """New groups take the places of those that are done, at the beginning of a chunk."""
        rows = []
        for one in asked:
            self.groups[one.prompt, one.sample] = Group(one)
            rows += [
                Successor(one.prompt, one.sample, betas=one.betas, draws=self.size, slot=slot)
                for slot in range(self.size)
            ]
        if rows:
            self.batch.enter(rows)
            for lane in self.lanes:
                lane.enter([row.prompt for row in rows])
        for origin, row in enumerate(self.batch.rows):
            row.origin = origin

    def _compare(self, rows: list[Successor]) -> list[Successor]:
        """The end of a chunk: who goes on, and the responses of the groups that are done."""
        self._score(rows)
        place = {id(row): index for index, row in enumerate(self.batch.rows)}
        of: dict[tuple[int, int], list[Successor]] = {key: [] for key in self.groups}
        for row in rows:
            of[row.prompt, row.sample].append(row)
        beams: list[tuple[Successor, int]] = []  # (parent, slot)
        done = []
        for key, group in list(self.groups.items()):
            group.tokens += sum(row.tokens for row in of[key])
            group.flops += sum(row.flops for row in of[key])
            group.ended, going = self.search.compare(
                group.ended, of[key], self.search.beams, self.search.successors, self.batch.is_done
            )
            beams += [(row, first + k) for first, row in going for k in range(self.search.successors)]
            if not going:
                done.append(group.best(several=self.size > 1))
                del self.groups[key]
        for lane in self.lanes:
            lane.select([row.origin for row, _ in beams])
        copies = [successor_of(row, slot) for row, slot in beams]
        self.batch.go_on(copies, [place[id(row)] for row, _ in beams])
        return done

    def _score(self, rows: list[Successor]) -> None:
        """Gives every row of the chunk its score. Raises FloatingPointError where one is not finite."""
        lm, sampling = self.engine.lanes.policy.lm, self.engine.draw.sampling
        for row in rows:
            row.text = text_of(lm.tokenizer, sampling, row.token_ids)
            row.ended = row.token_ids[-1] == lm.eos
        chunk = {}
        for lane in self.lanes:
            states = lane.forward([Written(row.token_ids, row.text, row.ended) for row in rows])
            for row, tokens, flops in zip(rows, states.tokens, states.flops, strict=True):
                row.tokens += tokens
                row.flops += flops
            chunk[lane.lane] = states
        asked = self.engine.asked
        prompts = [] if asked is None else [asked[row.prompt] for row in rows]
        scorer = self.search.scorer
        for row, score in zip(rows, scorer.scores(rows, chunk, prompts), strict=True):
            if not math.isfinite(score):
                raise FloatingPointError(
                    f"{scorer.name} is not finite after step {len(row.token_ids)} of prompt "
                    f"{self.engine.lanes.ids[row.prompt]!r}, sample {row.sample}"
                )
            row.score = score / len(row.token_ids) if self.search.length_normalised else score


def successor_of(row: Successor, slot: int) -> Successor:
    """A copy of a beam that goes on as the group's draw `slot`; what its chunk cost is the group's already."""
    return replace(
        row,
        slot=slot,
        token_ids=list(row.token_ids),
        logprobs=list(row.logprobs),
        kept={name: list(column) for name, column in row.kept.items()},
        tokens=0,
        flops=0.0,
    )
