"""Stage: responses of one method. Reads `prompts.parquet` and the folders of its policy, guide and search; writes
`generations.parquet` (records.Generation), `trained.json`, what the models that it needs beyond π₀ cost to train, and
`uncounted.json`, the rewards that select among its responses and do not say what that takes.

    tilt run goal=[decode] method=vas

A method is its parts (`parts.py`): a policy, a token guide (or none) and a search (or none).
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.decode.divergence import Divergence, Measured
from stages.decode.parts import Search, TokenGuide
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.language_model import require_model_folder
from stages.engine.loaded import LoadedLM
from stages.engine.prompts import encode, encode_prompt, read_parts, require_positive
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.records import Generation, Prompt, write
from stages.reward import write_uncounted
from stages.runtime import Runtime
from stages.shards import block, merge
from stages.training_cost import training_costs, write_costs

FILE = "generations.parquet"


@dataclass
class Decode:
    """`samples` responses to each prompt of `parts` by one method."""

    prompts: Path
    """Payload of stage `prompts`."""
    parts: list[str]
    policy: CausalLM
    method: str
    """Name for tables."""
    settings: dict[str, Any]
    """The method's strength and size, for tables: `{"beta": 4.0, "k": 20}`."""
    sampling: Sampling
    base: Path | None = None
    """Folder of π₀. Where the policy is another model its KL is measured after decoding (`divergence.py`)."""
    guide: TokenGuide | None = None
    search: Search | None = None
    samples: int = 1
    seed: int = 1
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput for what cannot be used, FloatingPointError where a model's numbers are not finite."""
        generations, seconds, apart = self._generations(None)
        write(Path(out) / FILE, Generation, generations)
        self._write_costs(Path(out))
        self._report(generations, seconds, apart)

    def run_shard(self, out: Path, index: int, count: int) -> None:
        """The responses to a consecutive part of the prompts: no draw depends on which prompts are decoded together."""
        write(Path(out) / FILE, Generation, self._generations((index, count))[0])

    def merge(self, parts: list[Path], out: Path) -> None:
        """All shards' responses, as `run` would have written them."""
        self._write_costs(Path(out))
        self._report(merge(parts, out, FILE, Generation), None, Measured("none"))

    def _write_costs(self, out: Path) -> None:
        """What training the method's own models cost, of which π₀ is none; what the responses' FLOPs leave out."""
        write_costs(out, training_costs([self.policy, self.guide, self.search], self.base or self.policy.folder))
        write_uncounted(out, self.search)

    def _generations(self, shard: tuple[int, int] | None) -> tuple[list[Generation], float, Measured]:
        """The shard's responses, all where there is none; the seconds that decoding took; how KL was measured."""
        self.sampling.check()
        require_positive(self.samples)
        if self.guide is not None:
            self.guide.check()
        if self.search is not None:
            self.search.check()
        if self._another():
            require_model_folder(Path(str(self.base)), "base")
        prompts = block(read_parts(self.prompts, self.parts), shard)
        if not prompts:  # more shards than prompts
            return [], 0.0, Measured("none")
        lanes = Lanes(self.policy.load(self.runtime.device))
        encoded = encode(prompts, lanes.policy.lm, self.sampling.max_new_tokens)
        terms = Terms() if self.guide is None else self.guide.open(lanes, self.sampling)
        draw = Draw(self.sampling, self.seed, self.runtime.rows, self.runtime.progress)
        begun = time.perf_counter()
        if self.search is None:
            responses = Engine(lanes, draw, terms).run(encoded, self.samples, prompts)
        else:
            responses = self.search.decode(lanes, draw, terms, prompts, encoded, self.samples)
        seconds = time.perf_counter() - begun
        apart = self._apart(lanes.policy.lm, prompts, [ids for _, ids in encoded], responses)
        each = seconds / len(responses)
        return [self._generation(prompts[row.prompt], row, each, apart.kind) for row in responses], seconds, apart

    def _apart(
        self, policy: LoadedLM, prompts: Sequence[Prompt], encoded: Sequence[Sequence[int]], responses: list[Response]
    ) -> Measured:
        """Measures the KL of a policy that is not π₀, where its own samples are what was decoded."""
        chosen = self.search is not None and self.search.selects
        if not self._another() or self.guide is not None or chosen or self.sampling.greedy:
            return Measured("none")
        base = replace(self.policy, folder=Path(str(self.base))).load(self.runtime.device, "base")
        asked = [encode_prompt(base.tokenizer, prompt) for prompt in prompts]
        divergence = Divergence(policy, base, self.sampling, self.runtime.rows)
        return divergence.measure(responses, encoded, asked, self.runtime.progress)

    def _kl(self, response: Response, apart: str) -> tuple[float, str]:
        """KL of the sequence and its kind (`apart` for a policy that is not π₀); nan, `none` where none is known."""
        if self._another():
            return math.nan if apart == "none" else response.kl, apart
        if self.search is not None and self.search.selects:  # a bound is one against the policy that drew the samples
            bound = self.search.kl() if self.guide is None else math.nan
            return bound, "none" if math.isnan(bound) else "bound"
        if self.sampling.greedy and self.guide is not None:  # two point masses
            return math.nan, "none"
        return response.kl, "exact"

    def _another(self) -> bool:
        return self.base is not None and Path(self.base) != Path(self.policy.folder)

    def _generation(self, prompt: Prompt, response: Response, seconds: float, apart: str) -> Generation:
        kl, kind = self._kl(response, apart)
        return Generation(
            prompt_id=prompt.id,
            sample=response.sample,
            token_ids=response.token_ids,
            text=response.text,
            logprob=response.logprob,
            finished=response.finished,
            part=prompt.part,
            method=self.method,
            settings=json.dumps(dict(self.settings), sort_keys=True),
            base_logprob=math.nan if self._another() and apart == "none" else response.base_logprob,
            kl=kl,
            kl_kind=kind,
            tokens=response.tokens,
            flops=response.flops,
            seconds=seconds,
        )

    def _report(self, generations: Sequence[Generation], seconds: float | None, apart: Measured) -> None:
        """`seconds` is the wall time of one process, None where several had a part in it."""
        lengths = [len(generation.token_ids) for generation in generations]
        speed = {"tokens_per_second": sum(lengths) / seconds} if seconds else {}
        self.runtime.metrics(
            speed
            | {
                "kl": float(np.mean([generation.kl for generation in generations])),
                "length": float(np.mean(lengths)),
                "finished": float(np.mean([generation.finished for generation in generations])),
            }
            | ({} if apart.kind == "none" else apart.metrics())
        )
