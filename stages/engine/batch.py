"""The rows that step together: what each has drawn, its randomness, its strengths, and its place in every lane.

Rows may enter and leave between any two steps; what a row draws does not depend on the others. (`engine.py` decides
when; so may anybody else who holds a batch.)
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from stages.engine.distribution import NotFinite
from stages.engine.lane import Lane, Ready
from stages.engine.lanes import Lanes
from stages.engine.loaded import Forward
from stages.engine.meter import charge, charge_prompt, charge_step
from stages.engine.response import Response, stops
from stages.engine.sampling import DRAWS, Draw, uniforms
from stages.engine.steering import Choice, Steering

Row = TypeVar("Row", bound=Response)
Seen = TypeVar("Seen", bound=Response, contravariant=True)


class Watcher(Protocol[Seen]):
    """Who looks at every step: a scorer of chunks."""

    keeps_last: bool
    """Whether the token that ends a row is forwarded too, because the state after it is read."""

    def chosen(self, rows: Sequence[Seen], choice: Choice) -> None:
        """The next tokens are known; the lanes hold the states before them."""
        ...

    def stepped(self, rows: Sequence[Seen]) -> None:
        """The lanes hold the states after the newest tokens. Called where `keeps_last`."""
        ...


class Nobody:
    """Watches nothing."""

    keeps_last = False

    def chosen(self, rows: Sequence[Response], choice: Choice) -> None:
        pass

    def stepped(self, rows: Sequence[Response]) -> None:
        pass


class Batch(Generic[Row]):
    """Up to `capacity` rows. `width`: the most tokens a row that any lane forwards at once."""

    def __init__(
        self, lanes: Lanes, steering: Steering, draw: Draw, capacity: int, width: int, watcher: Watcher[Row]
    ) -> None:
        self.lanes, self.steering, self.draw = lanes, steering, draw
        self.capacity, self.watcher = capacity, watcher
        self.limit = draw.sampling.max_new_tokens
        self.rows: list[Row] = []
        self.uniforms = np.zeros((0, self.limit, DRAWS))  # (R, limit, uniforms)
        self.betas = torch.zeros(0, len(steering.betas), dtype=torch.float64, device=lanes.policy.device)  # (R, S)
        self.prefilled: dict[int, list[Ready]] = {}
        for lane in lanes.all:
            lane.begin(capacity, self.limit, width)

    def enter(self, rows: Sequence[Row], soon: Collection[int] = ()) -> None:
        """New rows, behind those that are here; a prompt is encoded once for all its rows.

        `soon`: prompts of which further rows will enter; their encoding is kept. Raises ValueError where there is no
        place for all rows.
        """
        if len(self.rows) + len(rows) > self.capacity:
            raise ValueError(f"{len(self.rows)} rows and {len(rows)} new ones, but places for {self.capacity}")
        counts = Counter(row.prompt for row in rows)
        rows = [row for prompt in counts for row in rows if row.prompt == prompt]  # a prompt's rows together
        if wanted := [prompt for prompt in counts if prompt not in self.prefilled]:
            ready = [lane.prefill(wanted) for lane in self.lanes.all]
            self.prefilled |= {prompt: [lane[place] for lane in ready] for place, prompt in enumerate(wanted)}
        for place, lane in enumerate(self.lanes.all):
            longest = max(len(lane.prompts[prompt]) for prompt in counts)
            lane.enter([(self.prefilled[prompt][place], count) for prompt, count in counts.items()], longest)
        self.prefilled = {prompt: ready for prompt, ready in self.prefilled.items() if prompt in soon}
        self.uniforms = np.concatenate([self.uniforms, self._drawn(rows)])
        self.betas = torch.cat([self.betas, self._strengths(rows)])
        for row in rows:
            if row.stream == 0:
                charge_prompt(row, self.lanes)
        self.rows += rows

    def step(self) -> list[Row]:
        """One token for every row. Returns the rows that it ended, which have left.

        Raises FloatingPointError naming the model, the prompt and the step where logits or values are not finite.
        """
        choice, forwarded = self._choose()
        self.watcher.chosen(self.rows, choice)
        self._append(choice)
        if self.watcher.keeps_last:
            self._forward(choice, forwarded, range(len(self.rows)))
            self.watcher.stepped(self.rows)
            ended, _ = self._leave(states=True)
            return ended
        ended, staying = self._leave(states=False)  # what has just ended needs no forward
        self._forward(choice, forwarded, staying)
        return ended

    def _choose(self) -> tuple[Choice, dict[Lane, Forward]]:
        """The next token of every row, and what was forwarded to find it: nothing where no value is asked."""
        steps = [len(row.token_ids) for row in self.rows]
        drawn = torch.from_numpy(self.uniforms[np.arange(len(steps)), steps])  # (R, 3)
        forwarded: dict[Lane, Forward] = {}
        with self._named():
            proposal = self.steering.propose(drawn.to(self.lanes.policy.device), self.betas)
            charge(self.rows, 0, [self.steering.flops] * len(self.rows))
            if proposal.choice is not None:
                return proposal.choice, forwarded
            for lane in self.steering.scored:
                charge_step(self.rows, lane, self.steering.width)
                forwarded[lane] = lane.forward(proposal.ids)  # (R, F, D)
            choice = self.steering.choose(proposal, {lane: out.states for lane, out in forwarded.items()})
        for lane in forwarded:
            lane.cache.keep(choice.index.to(lane.device))
        return choice, forwarded

    def _forward(self, choice: Choice, forwarded: dict[Lane, Forward], staying: Sequence[int]) -> None:
        """Every lane on to the states after the chosen tokens of the rows that stay (which old row each was)."""
        if not staying:
            return
        tokens = choice.token[list(staying), None]  # (R, 1)
        for lane in self.lanes.eager:
            rows = torch.tensor(staying, device=lane.device)
            if lane in forwarded:
                newest = forwarded[lane].at(rows, choice.index.to(lane.device)[rows])  # (R, D)
            else:
                charge_step(self.rows, lane, 1)
                out = lane.forward(tokens)
                lane.cache.keep(torch.zeros_like(rows))
                newest = out.at(slice(None), 0)
            charge(self.rows, 0, lane.take(newest))

    def _append(self, choice: Choice) -> None:
        tokenizer, sampling = self.lanes.policy.lm.tokenizer, self.draw.sampling
        columns = (choice.token, choice.logprob, choice.base_logprob, choice.kl)  # (R,) each
        for row, token, logprob, base_logprob, kl in zip(
            self.rows, *(column.tolist() for column in columns), strict=True
        ):
            row.token_ids.append(token)
            row.logprob += logprob
            row.base_logprob += base_logprob
            row.kl += kl
            row.finished = token == self.lanes.policy.lm.eos or stops(tokenizer, sampling, row.token_ids)
        for name in self.draw.keep:
            for row, one in zip(self.rows, getattr(choice, name).tolist(), strict=True):
                row.kept.setdefault(name, []).append(one)

    def is_done(self, row: Response) -> bool:
        """Finished, or at the limit."""
        return row.finished or len(row.token_ids) >= self.limit

    def _leave(self, states: bool) -> tuple[list[Row], list[int]]:
        """Lets rows go that are done. Returns them, and which old row each remaining one was.

        The last rows fill the gaps, so that few keys and values move.
        """
        stays = [not self.is_done(row) for row in self.rows]
        ended = [row for row, stay in zip(self.rows, stays, strict=True) if not stay]
        count = sum(stays)
        spare = [index for index in range(count, len(stays)) if stays[index]]
        staying = [index if stays[index] else spare.pop() for index in range(count)]
        self.rows = [self.rows[index] for index in staying]
        self.uniforms, self.betas = self.uniforms[staying], self.betas[staying]
        for lane in self.lanes.eager:
            lane.select(staying, states)
        return ended, staying

    def go_on(self, rows: Sequence[Row], sources: Sequence[int]) -> None:
        """From now on these rows: row i from the states of what was row sources[i], with random numbers of its own."""
        for lane in self.lanes.eager:
            lane.select(sources, states=True)
        self.rows = list(rows)
        self.uniforms, self.betas = self._drawn(rows), self._strengths(rows)

    def _drawn(self, rows: Sequence[Row]) -> np.ndarray:
        """(R, limit, 3)"""
        ids, seed = self.lanes.ids, self.draw.seed
        each = [uniforms(seed, ids[row.prompt], row.stream, self.limit) for row in rows]
        return np.stack(each) if each else np.zeros((0, self.limit, DRAWS))

    def _strengths(self, rows: Sequence[Row]) -> torch.Tensor:
        """(R, S)"""
        each = [self.steering.betas if row.betas is None else row.betas for row in rows]
        return self.betas.new_tensor(each).view(len(rows), len(self.steering.betas))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Says of which prompt and step it was that a model's numbers were not finite."""
        try:
            yield
        except NotFinite as error:
            row = self.rows[error.row]
            raise FloatingPointError(
                f"{error} at step {len(row.token_ids)} of prompt {self.lanes.ids[row.prompt]!r}, "
                f"sample {row.sample} (policy {self.lanes.policy.lm.folder})"
            ) from error
