"""The one loop that decodes: rows enter, step together, finish at EOS or the limit, and others take their places.

A row is one sample of one prompt. At most `rows` of them step together; with candidates each step forwards rows·F
tokens (F = k candidates and one from outside them). A prompt is encoded once, whatever the number of its samples.
Chunk search (`chunk.py`) is this loop with rows in groups.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from stages.engine.lanes import Lanes, Ready
from stages.engine.policy import Policy
from stages.engine.sampling import NotFinite, Sampling, uniforms
from stages.engine.steering import Choice, Steering, Terms
from stages.records import Prompt

REFILL_SHARE = 4
"""New rows enter when a quarter of the places is free: a prefill a finished row would cost more than it saves."""


@dataclass
class Response:
    """One decoded row; becomes a record in `sample.py` and `decode.py`."""

    prompt: int
    """Index into the prompts given to `Engine.run`."""
    sample: int
    token_ids: list[int] = field(default_factory=list)
    """(T,), EOS included."""
    text: str = ""
    logprob: float = 0.0
    """log π(y|x), nats, as sampled: temperature, truncation, tilt."""
    base_logprob: float = 0.0
    """log π₀(y|x), nats, as sampled: same temperature and truncation."""
    kl: float = 0.0
    """Sum of exact per-step KL(π ‖ π₀), nats."""
    finished: bool = False
    tokens: int = 0
    """Tokens forwarded for it, candidates included, padding not; its prompt's count with the prompt's sample 0. A token
    counts once a model, through how many layers it goes is in the FLOPs. A reward that selects counts what it reads."""
    flops: float = 0.0
    seconds: float = 0.0
    """The run's wall time ÷ its rows."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a device has refused memory (torch's CPU allocator raises a plain RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def text_of(tokenizer: PreTrainedTokenizerBase, sampling: Sampling, token_ids: Sequence[int]) -> str:
    """A response as it is judged: without special tokens, cut before the first stopping string."""
    text = str(tokenizer.decode(list(token_ids), skip_special_tokens=True))
    found = [text.index(stop) for stop in sampling.stop if stop in text]
    return text[: min(found)] if found else text


class Engine:
    """Decodes with one policy under a guide's terms. Results do not depend on `rows` beyond floating-point rounding."""

    def __init__(
        self,
        policy: Policy,
        sampling: Sampling,
        terms: Terms,
        *,
        seed: int,
        rows: int,
        progress: Callable[..., None] | None = None,
    ) -> None:
        self.policy, self.sampling = policy, sampling
        self.lanes = terms.lanes or Lanes(policy)
        self.steering = Steering(terms, self.lanes, sampling)
        self.seed, self.rows = seed, max(1, rows)
        self.progress = progress
        self.told = 0.0
        self.keeps_last = False
        """Whether the token that ends a row is forwarded too, because something reads the state after it."""

    @torch.inference_mode()
    def run(
        self, prompts: Sequence[tuple[str, Sequence[int]]], samples: int, asked: Sequence[Prompt] | None = None
    ) -> list[Response]:
        """Decodes samples 0 … samples − 1 of each (prompt id, token ids); ordered by prompt, then sample.

        `asked`, the same prompts: needed where another model encodes them on its own. Out of memory halves the rows
        that step together and goes on with those that were not done. Raises FloatingPointError naming the model, the
        prompt and the step where logits or values are not finite.
        """
        begun = time.perf_counter()
        self.prompts, self.asked = prompts, asked
        self.lanes.encode([ids for _, ids in prompts], asked, self.sampling.max_new_tokens)
        self.done: list[Response] = []
        self.wanted = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)]
        self.total = len(self.wanted)
        while len(self.done) < self.total:
            try:
                self._decode()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self.rows <= self._least_rows():
                    raise
                self.rows = max(self._least_rows(), self.rows // 2)
                warnings.warn(f"out of memory: decoding goes on with {self.rows} rows at a time", stacklevel=2)
        seconds = time.perf_counter() - begun
        for response in self.done:
            response.text = text_of(self.policy.tokenizer, self.sampling, response.token_ids)
            response.seconds = seconds / self.total
        self._tell(last=True)
        return sorted(self.done, key=lambda response: (response.prompt, response.sample))

    def _least_rows(self) -> int:
        return 1

    def _decode(self) -> None:
        """Everything that is wanted and not done."""
        self._begin()
        while self.live or self.pending:
            free = self.capacity - len(self.live)
            if self.pending and (not self.live or free * REFILL_SHARE >= self.rows):
                self._refill(free)
            self._step()
            self._tell()

    def _begin(self) -> None:
        ready = {(response.prompt, response.sample) for response in self.done}
        self.pending = [pair for pair in self.wanted if pair not in ready][::-1]
        self.live: list[Response] = []
        self.prefilled: dict[int, list[Ready]] = {}
        self.capacity = min(self.rows, len(self.pending))
        limit = self.sampling.max_new_tokens
        for lane in self.lanes.all:
            lane.begin(self.capacity, limit, self.steering.width)
        self.draws = np.zeros((0, limit, 3))  # (R, limit, uniforms)

    def _refill(self, free: int) -> None:
        """Encodes the prompts of the next `free` rows in one forward and lets the rows enter."""
        self._enter([self.pending.pop() for _ in range(min(free, len(self.pending)))])
        unfinished = self.pending[-1][0] if self.pending else None  # rows enter in order: at most one prompt is split
        self.prefilled = {prompt: ready for prompt, ready in self.prefilled.items() if prompt == unfinished}

    def _enter(self, entering: Sequence[tuple[int, int]]) -> None:
        """New rows, (prompt, sample) each, in every lane."""
        counts = {prompt: sum(prompt == other for other, _ in entering) for prompt, _ in entering}
        if wanted := [prompt for prompt in counts if prompt not in self.prefilled]:
            self._prefill(wanted)
        for place, lane in enumerate(self.lanes.all):
            longest = max(len(lane.prompts[prompt]) for prompt in counts)
            lane.enter([(self.prefilled[prompt][place], count) for prompt, count in counts.items()], longest)
        limit = self.sampling.max_new_tokens
        drawn = [uniforms(self.seed, self.prompts[prompt][0], sample, limit) for prompt, sample in entering]
        self.draws = np.concatenate([self.draws, np.stack(drawn)])
        for prompt, sample in entering:
            response = self._response(prompt, sample)
            if sample == 0:
                response.tokens = sum(len(lane.prompts[prompt]) for lane in self.lanes.all)
                response.flops = sum(lane.prompt_flops(prompt) for lane in self.lanes.all)
            self.live.append(response)

    def _response(self, prompt: int, sample: int) -> Response:
        return Response(prompt, sample)

    def _prefill(self, wanted: list[int]) -> None:
        lanes = [lane.prefill(wanted) for lane in self.lanes.all]
        self.prefilled |= {prompt: [lane[row] for lane in lanes] for row, prompt in enumerate(wanted)}

    def _step(self) -> None:
        """One token for every live row."""
        steps = [len(response.token_ids) for response in self.live]
        draws = torch.from_numpy(self.draws[np.arange(len(steps)), steps]).to(self.policy.device)  # (R, 3)
        try:
            proposal = self.steering.propose(draws)
            for response in self.live:
                response.flops += self.steering.flops
            scored = {}
            if (choice := proposal.choice) is None:
                for lane in self.steering.scored:
                    self._count(lane.step_flops(self.steering.width), self.steering.width)
                    scored[lane] = lane.forward(proposal.ids)
                choice = self.steering.choose(proposal, {lane: out.read for lane, out in scored.items()})
                for lane in scored:
                    lane.cache.keep(choice.index.to(lane.device))
        except NotFinite as error:
            raise self._named(error) from error
        self._chosen(choice)
        self._append(choice)
        staying = list(range(len(self.live))) if self.keeps_last else self._leave()
        if not staying:  # what has just finished needs no forward
            return
        tokens = choice.token[staying, None]  # (R, 1)
        for lane in self.lanes.eager:
            rows = torch.tensor(staying, device=lane.device)
            if lane in scored:
                spent = lane.take(scored[lane].at(rows, choice.index.to(lane.device)[rows]))
            else:
                self._count(lane.step_flops(1), 1)
                out = lane.forward(tokens)
                lane.cache.keep(torch.zeros_like(rows))
                spent = lane.take(out.at(slice(None), 0))
            self._count(spent, 0)
        if self.keeps_last:
            self._stepped()
            self._leave(states=True)

    def _count(self, flops: Sequence[float], width: int) -> None:
        for response, cost in zip(self.live, flops, strict=True):
            response.tokens += width
            response.flops += cost

    def _named(self, error: NotFinite) -> FloatingPointError:
        response = self.live[error.row]
        return FloatingPointError(
            f"{error} at step {len(response.token_ids)} of prompt {self.prompts[response.prompt][0]!r}, "
            f"sample {response.sample} (policy {self.policy.folder})"
        )

    def _chosen(self, choice: Choice) -> None:
        """The next tokens are known; the lanes hold the states before them."""

    def _stepped(self) -> None:
        """The lanes hold the states after the newest tokens, those that ended a row included."""

    def _append(self, choice: Choice) -> None:
        columns = (choice.token, choice.logprob, choice.base_logprob, choice.kl)
        for response, token, logprob, base_logprob, kl in zip(
            self.live, *(column.tolist() for column in columns), strict=True
        ):
            response.token_ids.append(token)
            response.logprob += logprob
            response.base_logprob += base_logprob
            response.kl += kl
            response.finished = token == self.policy.eos or self._stops(response.token_ids)

    def _leave(self, states: bool = False) -> list[int]:
        """Lets rows go that are finished or at the limit.

        Returns which old row each remaining one was: the last rows fill the gaps, so that few keys and values move.
        """
        limit = self.sampling.max_new_tokens
        stays = [not row.finished and len(row.token_ids) < limit for row in self.live]
        self._left([row for row, stay in zip(self.live, stays, strict=True) if not stay])
        count = sum(stays)
        spare = [index for index in range(count, len(stays)) if stays[index]]
        staying = [index if stays[index] else spare.pop() for index in range(count)]
        self.live = [self.live[index] for index in staying]
        self.draws = self.draws[staying]
        for lane in self.lanes.eager:
            lane.select(staying, states)
        return staying

    def _left(self, rows: list[Response]) -> None:
        self.done += rows

    def _stops(self, token_ids: Sequence[int]) -> bool:
        """Whether a stopping string stands at the end. A token is at least one byte: few need to be decoded."""
        if not self.sampling.stop:
            return False
        tail = max(len(stop.encode()) for stop in self.sampling.stop) + 4
        text = str(self.policy.tokenizer.decode(list(token_ids)[-tail:], skip_special_tokens=True))
        return any(stop in text for stop in self.sampling.stop)

    def _tell(self, last: bool = False) -> None:
        """Progress about twice a second."""
        now = time.perf_counter()
        if self.progress is not None and (last or now - self.told > 0.5):
            self.told = now
            self.progress(len(self.done), self.total, f"{len(self.live)} rows decoding" if self.live else "decoded")
