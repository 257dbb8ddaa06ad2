"""Stage: rollouts of a policy. Reads `prompts.parquet` and a model folder; writes `rollouts.parquet` (records.Rollout).

    tilt run goal=[rollouts]

The engine is the one that decodes, without a guide: values are trained on what decoding will tilt, so `sampling` should
be the same in both.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.decode.decode import encode, read_parts, require_positive
from stages.decode.engine import Engine
from stages.decode.guides import Unguided
from stages.decode.policy import CausalLM
from stages.decode.sampling import Sampling
from stages.records import Rollout, write
from stages.runtime import Runtime


@dataclass
class Sample:
    """`samples` responses to each prompt of `parts`."""

    prompts: Path
    """Payload of stage `prompts`."""
    parts: list[str]
    policy: CausalLM
    sampling: Sampling
    samples: int = 1
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput for what cannot be used, FloatingPointError where logits are not finite."""
        self.sampling.check()
        require_positive(self.samples)
        prompts = read_parts(self.prompts, self.parts)
        policy = self.policy.load(self.runtime.device)
        encoded = encode(prompts, policy, self.sampling.max_new_tokens)
        engine = Engine(
            policy,
            self.sampling,
            Unguided(self.sampling.greedy),
            seed=self.seed,
            rows=self.runtime.rows,
            progress=self.runtime.progress,
        )
        begun = time.perf_counter()
        responses = engine.run(encoded, self.samples)
        seconds = time.perf_counter() - begun
        rollouts = [
            Rollout(
                prompt_id=prompts[row.prompt].id,
                sample=row.sample,
                token_ids=row.token_ids,
                text=row.text,
                logprob=row.logprob,
                finished=row.finished,
            )
            for row in responses
        ]
        write(Path(out) / "rollouts.parquet", Rollout, rollouts)
        lengths = [len(rollout.token_ids) for rollout in rollouts]
        self.runtime.metrics(
            {
                "tokens_per_second": sum(lengths) / seconds,
                "length": float(np.mean(lengths)),
                "finished": float(np.mean([rollout.finished for rollout in rollouts])),
                "distinct": len({(rollout.prompt_id, rollout.text) for rollout in rollouts}) / len(rollouts),
            }
        )
