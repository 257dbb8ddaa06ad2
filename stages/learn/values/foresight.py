"""Stage: how well a value foretells the reward. Reads prompts, π₀, a value model and a reward; writes
`foresight.json`: rank correlations by position, with intervals, and the points behind them.

    tilt run goal=[foresight]

The truth at a prefix is the mean reward of fresh responses of π₀ that go on from it (Monte Carlo). The value is
compared with the reward of the prefix alone, which takes no training.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.prompts import encode, read_parts
from stages.engine.response import text_of
from stages.engine.sampling import Draw, Sampling
from stages.errors import BadInput
from stages.learn.values.load import load_value
from stages.records import Prompt
from stages.reward import Reward, scored
from stages.runtime import Runtime

PLACES = {"start": 0.0, "middle": 0.5, "end": 0.9}
"""Share of a response's tokens that stand when the value is asked."""


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; nan where either is all the same or has no value.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 4.0]))
    0.5
    """
    from scipy.stats import rankdata

    if not (np.isfinite(a).all() and np.isfinite(b).all()) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1].round(12))


def interval(columns: Sequence[np.ndarray], draws: int, seed: int) -> dict[str, list[float]]:
    """95 % percentile intervals over prompts, resampled together: of the value's rank correlation with the truth, of
    the prefix reward's, and of their difference. `columns`: truth, value, prefix reward, (N,) each."""
    generator = np.random.default_rng(seed)
    truth, value, prefix = columns
    drawn = []
    for _ in range(draws):
        rows = generator.integers(0, len(truth), len(truth))
        both = [rank_correlation(truth[rows], other[rows]) for other in (value, prefix)]
        drawn.append([*both, both[0] - both[1]])
    found = np.array(drawn)  # (draws, 3)
    bounds = [np.nanquantile(c, [0.025, 0.975]) if np.isfinite(c).any() else np.full(2, np.nan) for c in found.T]
    return {name: b.tolist() for name, b in zip(("value", "prefix_reward", "difference"), bounds, strict=True)}


@dataclass
class Foresight:
    """Values against Monte-Carlo means, on prompts that the value was not trained on."""

    prompts: Path
    """Payload of stage `prompts`."""
    policy: CausalLM
    """π₀."""
    value: Path
    """Payload of stage `value`."""
    reward: Reward
    sampling: Sampling
    """As the rollouts were drawn."""
    column: str = "proxy"
    """Which of the value's rewards."""
    parts: list[str] = field(default_factory=lambda: ["validation", "test"])
    samples: int = 16
    """Fresh responses a prefix."""
    draws: int = 1000
    """Bootstrap draws behind an interval."""
    seed: int = 1
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput for a value of another policy, an unknown reward, or fewer than two samples or prompts."""
        if self.samples < 2:
            raise BadInput("samples", f"{self.samples} is too few to take a mean of; use at least 2")
        prompts = read_parts(Path(self.prompts), self.parts)
        if len(prompts) < 2:
            raise BadInput("parts", "one prompt shows no rank correlation; name parts with at least two")
        value = load_value(self.value, self.policy.folder, self.runtime.device)
        names = value.head.rewards
        if self.column not in names:
            raise BadInput("column", f"the value has no reward {self.column!r}; it has {', '.join(names)}")
        column, limit = list(names).index(self.column), self.sampling.max_new_tokens
        policy = self.policy.load(self.runtime.device)
        starts = [ids for _, ids in encode(prompts, policy, 2 * limit)]
        first = self._draw(policy, prompts, starts, 1, "first")
        report: dict[str, dict[str, object]] = {}
        figures: dict[str, float] = {}
        for place, share in PLACES.items():
            kept = [list(r[0])[: int(share * len(r[0]))] for r in first]
            fresh = self._draw(policy, prompts, [s + k for s, k in zip(starts, kept, strict=True)], self.samples, place)
            # A response is cut at the limit wherever it was begun; what follows is not read.
            whole = [[(k + list(ids))[:limit] for ids in row] for k, row in zip(kept, fresh, strict=True)]
            truth = np.array(
                [self._rewards(policy, [p] * len(row), row).mean() for p, row in zip(prompts, whole, strict=True)]
            )
            foreseen = np.array([value.states(s, k)[-1, column] for s, k in zip(starts, kept, strict=True)])
            prefix = self._rewards(policy, prompts, kept)
            bounds = interval((truth, foreseen, prefix), self.draws, self.seed)
            each = {"value": rank_correlation(truth, foreseen), "prefix_reward": rank_correlation(truth, prefix)}
            each["difference"] = each["value"] - each["prefix_reward"]
            for name, figure in each.items():
                figures |= {f"{place}/{name}": figure}
                figures |= {f"{place}/{name}_low": bounds[name][0], f"{place}/{name}_high": bounds[name][1]}
            points = {"truth": truth.tolist(), "value": foreseen.tolist(), "prefix_reward": prefix.tolist()}
            report[place] = {"correlation": each, "interval": bounds, "prompts": [p.id for p in prompts]} | points
        (out / "foresight.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        rows = [[p, *(round(figures[f"{p}/{n}"], 4) for n in ("value", "prefix_reward", "difference"))] for p in PLACES]
        self.runtime.table("foresight", ["position", "value", "prefix reward", "difference"], rows)
        self.runtime.metrics(figures | {"prompts": float(len(prompts)), "samples": float(self.samples)})

    def _draw(
        self, policy: LoadedLM, prompts: Sequence[Prompt], starts: list[list[int]], samples: int, name: str
    ) -> list[list[list[int]]]:
        """Token ids of `samples` responses behind each start."""
        engine = Engine(Lanes(policy), Draw(self.sampling, self.seed, self.runtime.rows, self.runtime.progress))
        drawn: list[list[list[int]]] = [[] for _ in prompts]
        asked = [(f"{name}/{p.id}", ids) for p, ids in zip(prompts, starts, strict=True)]
        for response in engine.run(asked, samples):
            drawn[response.prompt].append(list(response.token_ids))
        return drawn

    def _rewards(self, policy: LoadedLM, prompts: Sequence[Prompt], responses: list[list[int]]) -> np.ndarray:
        texts = [text_of(policy.tokenizer, self.sampling, ids) for ids in responses]
        return scored(self.reward, list(prompts), texts, "reward")
