"""Stage: rollouts of a policy. Reads `prompts.parquet` and a model folder; writes `rollouts.parquet` (records.Rollout).

    tilt run goal=[rollouts]

The draws come from the engine that decodes, without a guide. Use the same `sampling` as in decoding: a value should be
trained on responses of the distribution that it will tilt.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.prompts import encode, read_parts, require_positive
from stages.engine.sampling import Draw, Sampling
from stages.records import Rollout, write
from stages.runtime import Runtime
from stages.shards import block, merge

FILE = "rollouts.parquet"


@dataclass
class Sample:
    """`samples` responses to each prompt of `parts`."""

    prompts: Path
    """Payload of stage `prompts`."""
    parts: list[str]
    policy: CausalLM
    sampling: Sampling
    samples: int = 8
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput for what cannot be used, FloatingPointError where logits are not finite."""
        rollouts, seconds = self._rollouts(None)
        write(Path(out) / FILE, Rollout, rollouts)
        self._report(rollouts, seconds)

    def run_shard(self, out: Path, index: int, count: int) -> None:
        """The rollouts of a consecutive part of the prompts: no draw depends on which prompts are decoded together."""
        write(Path(out) / FILE, Rollout, self._rollouts((index, count))[0])

    def merge(self, parts: list[Path], out: Path) -> None:
        """All shards' rollouts, as `run` would have written them."""
        self._report(merge(parts, out, FILE, Rollout), None)

    def _rollouts(self, shard: tuple[int, int] | None) -> tuple[list[Rollout], float]:
        """The shard's rollouts, all where there is none, and the seconds that sampling took."""
        self.sampling.check()
        require_positive(self.samples)
        prompts = block(read_parts(self.prompts, self.parts), shard)
        if not prompts:  # more shards than prompts
            return [], 0.0
        lm = self.policy.load(self.runtime.device)
        encoded = encode(prompts, lm, self.sampling.max_new_tokens)
        draw = Draw(self.sampling, self.seed, self.runtime.rows, self.runtime.progress)
        begun = time.perf_counter()
        responses = Engine(Lanes(lm), draw).run(encoded, self.samples)
        seconds = time.perf_counter() - begun
        rollouts = [
            Rollout(
                prompt_id=prompts[row.prompt].id,
                sample=row.sample,
                token_ids=row.token_ids,
                text=row.text,
                logprob=row.logprob,
                finished=row.finished,
                tokens=row.tokens,
                flops=row.flops,
            )
            for row in responses
        ]
        return rollouts, seconds

    def _report(self, rollouts: list[Rollout], seconds: float | None) -> None:
        """`seconds` is the wall time of one process, None where several had a part in it."""
        lengths = [len(rollout.token_ids) for rollout in rollouts]
        speed = {"tokens_per_second": sum(lengths) / seconds} if seconds else {}
        self.runtime.metrics(
            speed
            | {
                "length": float(np.mean(lengths)),
                "finished": float(np.mean([rollout.finished for rollout in rollouts])),
                "distinct": len({(rollout.prompt_id, rollout.text) for rollout in rollouts}) / len(rollouts),
            }
        )
