"""KL to π₀ of a policy that is no tilt of it: fine-tuned, DPO, PPO. Measured once it has decoded, on what it drew.

One teacher-forced forward of each model over prompts and responses; then at every state s_t of a sampled response,
over the whole vocabulary,

    KL_t = Σ_a π(a|s_t)·(log π(a|s_t) − log π₀(a|s_t))

exactly, as guides report it from their tilts. The sum over the response is an unbiased estimate of the sequence's KL,
of lower variance than the log-ratio of the tokens that were drawn.

Truncation cuts a tuned policy and π₀ apart, each by its own ranks: where π keeps a token that π₀ drops the KL as
sampled is infinite. What can be said then is the KL of the two before truncation, at the same temperature and at the
states that were visited; its kind is `untruncated`, not `exact`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stages.engine.distribution import Distribution, NotFinite
from stages.engine.engine import out_of_memory
from stages.engine.loaded import LoadedLM
from stages.engine.prompts import context_of
from stages.engine.response import Response
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.responses import Exchange, by_length, predict

CELLS = 4_000_000
"""Logits of one model held at once (16 MB): states are taken in portions."""
TOKENS = 512
"""Tokens that go through a model at once: more are no faster on a processor, and progress would stand still."""


def step_kl(ours: Distribution, theirs: Distribution, temperature: float) -> Tensor:
    """(R,) KL(π ‖ π₀) of two next-token distributions without truncation, nats, float64; inf where π draws what π₀
    never does.

    Example: π = (.5, .5), π₀ = (.25, .75): .5·log 2 + .5·log ⅔ = .1438.
    """
    logs = [side.logits.to(torch.float32, copy=True) for side in (ours, theirs)]  # (R, V): log weights, from here
    for log in logs:
        log.sub_(log.amax(dim=1, keepdim=True)).div_(temperature)
    ratio = logs[0].sub_(logs[1]).masked_fill_(ours.weights == 0, 0.0)  # (R, V)
    expected = (ours.weights * ratio).sum(dim=1, dtype=torch.float64) / ours.total  # (R,)
    return expected - ours.total.log() + theirs.total.log()


@dataclass
class Measured:
    """What the measurement was and cost; no part of what the method costs."""

    kind: str
    """`exact` or `untruncated`; `none` where the two models have no common vocabulary."""
    outside: float = 0.0
    """Share of the responses that π₀, truncated as it is sampled, could not have drawn."""
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def metrics(self) -> dict[str, float]:
        return {
            "outside_base": self.outside, "kl_tokens": float(self.tokens), "kl_flops": self.flops,
            "kl_seconds": self.seconds,
        }  # fmt: skip


class Divergence:
    """Of `policy` from `base`, both sampled by `sampling`. `rows` sequences go through a model together."""

    def __init__(self, policy: LoadedLM, base: LoadedLM, sampling: Sampling, rows: int) -> None:
        self.policy, self.base, self.sampling, self.rows = policy, base, sampling, max(1, rows)
        self.plain = replace(sampling, top_p=1.0, top_k=0, min_p=0.0)

    @torch.inference_mode()
    def measure(
        self,
        responses: Sequence[Response],
        prompts: Sequence[Sequence[int]],
        base_prompts: Sequence[Sequence[int]],
        progress: Callable[..., None],
    ) -> Measured:
        """Sets `kl` and `base_logprob` of every response; −inf where π₀, truncated, could not have drawn it.

        `prompts` are the policy's token ids, `base_prompts` those of π₀, whose chat template may differ. Raises
        FloatingPointError where a model's logits are not finite, BadInput where π₀'s context is too small.
        """
        if self.policy.tokenizer.get_vocab() != self.base.tokenizer.get_vocab():
            return Measured("none")
        begun, found = time.perf_counter(), Measured("exact" if self.sampling == self.plain else "untruncated")
        exchanges = [
            [Exchange(list(prompt[row.prompt]), row.token_ids) for row in responses]
            for prompt in (prompts, base_prompts)
        ]
        longest, theirs = (max(len(prompt) + len(response) for prompt, response in side) for side in exchanges)
        context = context_of(self.base.model)
        if context is not None and theirs > context:
            raise BadInput(
                "base",
                f"a prompt and its response are {theirs} tokens as {self.base.folder} encodes them, but its context "
                f"holds {context}; shorten the prompts or set a smaller max_new_tokens",
            )
        waiting, done = list(by_length(exchanges[0], max(1, min(self.rows, TOKENS // longest))))[::-1], 0
        while waiting:
            batch = waiting.pop()
            try:
                self._batch([responses[i] for i in batch], *([side[i] for i in batch] for side in exchanges))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or len(batch) == 1:
                    raise
                waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
                continue
            done += len(batch)
            progress(done, len(responses), "KL to the base policy")
        for model, side in zip((self.policy, self.base), exchanges, strict=True):
            for prompt, response in side:
                length = len(prompt) + len(response)
                found.tokens += length
                found.flops += model.flops(length, length * (length + 1) // 2, len(response))
        found.outside = sum(row.base_logprob == -torch.inf for row in responses) / len(responses)
        found.seconds = time.perf_counter() - begun
        return found

    def _batch(self, rows: Sequence[Response], ours: Sequence[Exchange], theirs: Sequence[Exchange]) -> None:
        policy, base = predict(self.policy.model, ours), predict(self.base.model, theirs)  # N states in the same order
        kl, logprob = [], []
        portion = max(1, CELLS // self.policy.vocabulary)
        for first in range(0, len(policy.targets), portion):
            place = slice(first, first + portion)
            try:
                mine = Distribution.of(self.policy.logits(policy.states[place]), self.plain)
                other = Distribution.of(self.policy.fit(self.base.logits(base.states[place])), self.plain)
            except NotFinite as error:
                raise FloatingPointError(
                    f"{error} of {self.policy.folder} or {self.base.folder}, while KL was measured"
                ) from error
            kl.append(step_kl(mine, other, self.sampling.temperature))
            sampled = other if self.sampling == self.plain else Distribution.of(other.logits, self.sampling)
            logprob.append(sampled.logprob(policy.targets[place, None])[:, 0])
        for name, each in (("kl", torch.cat(kl)), ("base_logprob", torch.cat(logprob))):  # (N,)
            sums = each.new_zeros(len(rows)).index_add(0, policy.rows, each)
            for row, total in zip(rows, sums.tolist(), strict=True):
                setattr(row, name, total)
