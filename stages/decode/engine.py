"""The one loop that decodes: rows enter, step together, finish at EOS or the limit, and others take their places.

A row is one sample of one prompt. At most `rows` of them step together; with a guide each step forwards rows·F tokens
(F = k candidates and one from outside them). A prompt is encoded once, whatever the number of its samples.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from stages.decode.cache import RowCache
from stages.decode.guides import Choice, Steering
from stages.decode.policy import Forward, Policy
from stages.decode.sampling import Base, NotFinite, Sampling, uniforms

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
    """Tokens forwarded for it, candidates included, padding not; its prompt's count with the prompt's sample 0."""
    flops: float = 0.0
    seconds: float = 0.0
    """The run's wall time ÷ its rows."""


@dataclass
class _Prefilled:
    """A prompt in the cache of its prefill, until all its samples have entered."""

    cache: RowCache
    row: int
    logits: Tensor
    """(V,)"""
    prefix: Tensor
    """(D,) hidden state of the last prompt token, at the guide's layer."""


class Engine:
    """Decodes with one policy and one guide. Results do not depend on `rows` beyond floating-point rounding."""

    def __init__(
        self,
        policy: Policy,
        sampling: Sampling,
        steering: Steering,
        *,
        seed: int,
        rows: int,
        progress: Callable[..., None] | None = None,
    ) -> None:
        self.policy, self.sampling, self.steering = policy, sampling, steering
        self.seed, self.rows = seed, max(1, rows)
        self.progress = progress
        self.told = 0.0

    @torch.inference_mode()
    def run(self, prompts: Sequence[tuple[str, Sequence[int]]], samples: int) -> list[Response]:
        """Decodes samples 0 … samples − 1 of each (prompt id, token ids); ordered by prompt, then sample.

        Raises FloatingPointError naming the model, the prompt and the step where logits or values are not finite.
        """
        begun = time.perf_counter()
        self.prompts = prompts
        self.pending = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)][::-1]
        self.total, self.done = len(self.pending), list[Response]()
        self.live: list[Response] = []
        self.prefilled: dict[int, _Prefilled] = {}
        longest = max((len(ids) for _, ids in prompts), default=0)
        # Rows are at most `longest` + limit tokens; the slack is how many steps pass between two moves of the buffer.
        capacity = longest + self.sampling.max_new_tokens + self.steering.width + 16
        self.cache = self.policy.cache(min(self.rows, self.total), capacity)
        self.draws = np.zeros((0, self.sampling.max_new_tokens, 3))  # (R, limit, uniforms)
        while self.live or self.pending:
            free = min(self.rows, self.total) - len(self.live)
            if self.pending and (not self.live or free * REFILL_SHARE >= self.rows):
                self._refill(free)
            self._step()
            self._tell()
        seconds = time.perf_counter() - begun
        for response in self.done:
            response.text = self.policy.tokenizer.decode(response.token_ids, skip_special_tokens=True)  # type: ignore
            response.seconds = seconds / self.total
        self._tell(last=True)
        return sorted(self.done, key=lambda response: (response.prompt, response.sample))

    def _refill(self, free: int) -> None:
        """Encodes the prompts of the next `free` rows in one forward and lets the rows enter."""
        entering = [self.pending.pop() for _ in range(min(free, len(self.pending)))]
        wanted = list(dict.fromkeys(prompt for prompt, _ in entering if prompt not in self.prefilled))
        if wanted:
            self._prefill(wanted)
        self.cache.settle(max(self.cache.longest(), *(len(self.prompts[prompt][1]) for prompt, _ in entering)))
        logits, prefix = [self.logits] if self.live else [], [self.prefix] if self.live else []
        for prompt in dict.fromkeys(prompt for prompt, _ in entering):
            ready, count = self.prefilled[prompt], sum(prompt == other for other, _ in entering)
            self.cache.enter(ready.cache, [ready.row] * count)
            logits.append(ready.logits.expand(count, -1))
            prefix.append(ready.prefix.expand(count, -1))
        self.logits, self.prefix = torch.cat(logits), torch.cat(prefix)  # (R, V), (R, D)
        limit = self.sampling.max_new_tokens
        drawn = [uniforms(self.seed, self.prompts[prompt][0], sample, limit) for prompt, sample in entering]
        self.draws = np.concatenate([self.draws, np.stack(drawn)])
        for prompt, sample in entering:
            response = Response(prompt, sample)
            if sample == 0:
                length = len(self.prompts[prompt][1])
                response.tokens = length
                response.flops = self.policy.flops(length, length * (length + 1) // 2, 1)
            self.live.append(response)
        unfinished = self.pending[-1][0] if self.pending else None  # rows enter in order: at most one prompt is split
        self.prefilled = {prompt: ready for prompt, ready in self.prefilled.items() if prompt == unfinished}

    def _prefill(self, wanted: list[int]) -> None:
        cache, out = self.policy.prefill([self.prompts[prompt][1] for prompt in wanted], self.steering.layer)
        logits = self.policy.logits(out.last[:, 0])  # (R, V)
        for row, prompt in enumerate(wanted):
            self.prefilled[prompt] = _Prefilled(cache, row, logits[row], out.read[row, 0])

    def _step(self) -> None:
        """One token for every live row."""
        steps = [len(response.token_ids) for response in self.live]
        draws = torch.from_numpy(self.draws[np.arange(len(steps)), steps]).to(self.policy.device)  # (R, 3)
        try:
            proposal = self.steering.propose(Base.of(self.logits, self.sampling), draws)
            if proposal.choice is not None:
                if staying := self._record(proposal.choice):  # what has just finished needs no forward
                    out = self._forward(proposal.ids[staying])
                    self.cache.keep(torch.zeros(len(staying), dtype=torch.long, device=self.policy.device))
                    self._continue(out.last[:, 0], out.read[:, 0])
                return
            out = self._forward(proposal.ids)
            choice = self.steering.choose(proposal, out.read, self.prefix)
            self.cache.keep(choice.index)
            if staying := self._record(choice):
                chosen = choice.index[staying]
                self._continue(out.last[staying, chosen], out.read[staying, chosen])
        except NotFinite as error:
            response = self.live[error.row]
            prompt = self.prompts[response.prompt][0]
            raise FloatingPointError(
                f"{error} at step {len(response.token_ids)} of prompt {prompt!r}, sample {response.sample} "
                f"(policy {self.policy.folder})"
            ) from error

    def _forward(self, ids: Tensor) -> Forward:
        """ids (R, F) of the live rows through the policy, counted."""
        width = ids.shape[1]
        if self.cache.length + width > self.cache.capacity:
            self.cache.settle(self.cache.longest())
        spans = (self.cache.length + 1 - self.cache.starts[: len(self.live)]).tolist()
        for response, span in zip(self.live, spans, strict=True):
            response.tokens += width
            response.flops += self.policy.flops(width, width * span, 0) + self.steering.flops
        return self.policy.step(ids, self.cache, self.steering.layer)

    def _continue(self, last: Tensor, read: Tensor) -> None:
        """Next logits of the live rows from the final states (R, D) of their newest tokens."""
        self.logits, self.prefix = self.policy.logits(last), read  # (R, V), (R, D)
        for response in self.live:
            response.flops += self.policy.flops(0, 0, 1)

    def _record(self, choice: Choice) -> list[int]:
        """Appends a token to every live row and lets finished rows leave.

        Returns which old row each remaining one was: the last rows fill the gaps, so that few keys and values move.
        """
        columns = (choice.token, choice.logprob, choice.base_logprob, choice.kl)
        for response, token, logprob, base_logprob, kl in zip(
            self.live, *(column.tolist() for column in columns), strict=True
        ):
            response.token_ids.append(token)
            response.logprob += logprob
            response.base_logprob += base_logprob
            response.kl += kl
            response.finished = token == self.policy.eos
        limit = self.sampling.max_new_tokens
        stays = [not row.finished and len(row.token_ids) < limit for row in self.live]
        self.done += [row for row, stay in zip(self.live, stays, strict=True) if not stay]
        count = sum(stays)
        spare = [index for index in range(count, len(stays)) if stays[index]]
        staying = [index if stays[index] else spare.pop() for index in range(count)]
        self.live = [self.live[index] for index in staying]
        self.draws = self.draws[staying]
        self.cache.select(staying)
        return staying

    def _tell(self, last: bool = False) -> None:
        """Progress about twice a second."""
        now = time.perf_counter()
        if self.progress is not None and (last or now - self.told > 0.5):
            self.told = now
            self.progress(len(self.done), self.total, f"{len(self.live)} rows decoding" if self.live else "decoded")
