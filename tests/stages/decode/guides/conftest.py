"""Fresh numpy sums over the whole vocabulary, for every guide."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.engine.causal_lm import CausalLM
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead
from stages.learn.values.vocab_head import VocabHead

Prompts = list[tuple[str, list[int]]]


class Fresh:
    """Every figure from a fresh forward over the whole prefix and float64 numpy over the whole vocabulary."""

    def __init__(self, policy: LoadedLM) -> None:
        self.models = {Path(policy.folder): policy.model}

    def model(self, folder: Path) -> Any:
        if folder not in self.models:
            self.models[folder] = CausalLM(folder).load("cpu").model
        return self.models[folder]

    @torch.inference_mode()
    def logits(self, folder: Path, prefix: list[int]) -> np.ndarray:
        return self.model(folder)(input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1].double().numpy()

    @torch.inference_mode()
    def state(self, folder: Path, prefix: list[int], layer: int) -> torch.Tensor:
        out = self.model(folder)(input_ids=torch.tensor([prefix]), use_cache=False, output_hidden_states=True)
        return out.hidden_states[layer][0, -1]

    def values(self, guide: ScalarValue, base: Path, prefix: list[int], candidates: np.ndarray) -> np.ndarray:
        folder = base if guide.model is None else Path(guide.model.folder)
        head = ValueHead.load(Path(guide.folder))
        betas = [guide.beta] if isinstance(guide.beta, float) else guide.beta
        raw = [head(self.state(folder, [*prefix, int(a)], head.layer)).double().numpy() for a in candidates]
        raw = np.stack(raw)  # (C, M)
        if guide.transform == "log_sigmoid":
            raw = -np.log1p(np.exp(-raw))
        return (raw * np.array(betas)).sum(1)

    def step(
        self, base: Path, prefix: list[int], sampling: Sampling, dense: list[Any], scalar: ScalarValue | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(π₀, π) of guides given as (guide, weight)."""
        raw = self.logits(base, prefix)
        z = raw / sampling.temperature
        if sampling.top_k:
            z = np.where(z >= np.sort(z)[-sampling.top_k], z, -np.inf)
        p = softmax(z)
        t = np.zeros_like(z)
        for guide, weight in dense:
            if isinstance(guide, ImplicitValue):
                untuned = base if guide.untuned is None else Path(guide.untuned.folder)
                ratio = self.logits(Path(guide.tuned.folder), prefix) - self.logits(untuned, prefix)
                t += weight * guide.weight * ratio / sampling.temperature
            else:
                head = VocabHead.load(Path(guide.folder))
                q = guide.beta * weight * head(self.state(base, prefix, head.layer)).double().numpy()
                if guide.k is not None:
                    top = np.argsort(-raw)[: guide.k]
                    others = -np.inf if guide.outside == "drop" else 0.0
                    kept = np.full_like(q, others)
                    kept[top] = q[top] - q[top][p[top] > 0].mean()
                    q = kept
                t += q
        pi = softmax(z + t)
        if scalar is not None:
            candidates = np.argsort(-(z + t))[: scalar.k]
            values = self.values(scalar, base, prefix, candidates)
            centred = values - values[pi[candidates] > 0].mean()
            if scalar.compat == "official":
                centred = centred / sampling.temperature
            weight = np.zeros_like(pi) if scalar.outside == "drop" else pi.copy()
            weight[candidates] = pi[candidates] * np.exp(centred)
            pi = weight / weight.sum()
        return p, pi


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max())
    return p / p.sum()


def divergence(pi: np.ndarray, p: np.ndarray) -> float:
    live = pi > 0
    return float((pi[live] * np.log(pi[live] / p[live])).sum())


def compare_with_fresh(
    rows: list[Response],
    prompts: Prompts,
    policy: LoadedLM,
    sampling: Sampling,
    dense: list[Any],
    scalar: ScalarValue | None = None,
) -> None:
    """Log-probabilities and KL of the rows are those of fresh forwards."""
    fresh, base = Fresh(policy), Path(policy.folder)
    for row in rows:
        prefix, logprob, base_logprob, kl = list(prompts[row.prompt][1]), 0.0, 0.0, 0.0
        for token in row.token_ids:
            p, pi = fresh.step(base, prefix, sampling, dense, scalar)
            logprob += math.log(pi[token])
            base_logprob += math.log(p[token])
            kl += divergence(pi, p)
            prefix.append(token)
        assert row.logprob == pytest.approx(logprob, abs=2e-4)
        assert row.base_logprob == pytest.approx(base_logprob, abs=2e-4)
        assert row.kl == pytest.approx(kl, abs=2e-4)
    assert sum(row.kl for row in rows) > 0.01


def refused(guide: Any, policy: LoadedLM) -> BadInput:
    with pytest.raises(BadInput) as error:
        guide.open(Lanes(policy), Sampling())
    assert "\n" not in error.value.problem
    return error.value


@pytest.fixture(scope="session")
def assert_fresh() -> Callable[..., None]:
    """`assert_fresh(rows, prompts, policy, sampling, dense, scalar=None)`; `dense` as (guide, weight)."""
    return compare_with_fresh


@pytest.fixture(scope="session")
def refusal() -> Callable[[Any, LoadedLM], BadInput]:
    """`refusal(guide, policy)`: what opening the guide raises, one line."""
    return refused


@pytest.fixture(scope="session")
def fresh_of() -> Callable[[LoadedLM], Fresh]:
    """`fresh_of(policy)`: logits, states and policies by fresh forwards."""
    return Fresh
