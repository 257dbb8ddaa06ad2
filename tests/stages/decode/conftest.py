"""A loaded tiny policy, prompts of different lengths, and value heads on its trunk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stages.decode.engine import Engine, Response
from stages.decode.guides import ScalarValue, Unguided
from stages.decode.policy import CausalLM, Policy
from stages.decode.sampling import Sampling
from stages.learn.value_model import ValueHead, fingerprint

TEXTS = [
    "the film",
    "a dull and noisy film that never",
    "two",
    "an honest story told with warmth and patience and",
    "so",
]


@pytest.fixture(scope="session")
def policy(tiny_model: Path) -> Policy:
    return CausalLM(tiny_model).load("cpu")


@pytest.fixture(scope="session")
def prompts(policy: Policy) -> list[tuple[str, list[int]]]:
    """(id, token ids) of five prompts of 1 to 12 tokens or so."""
    return [(f"p{i}", list(policy.tokenizer(text)["input_ids"])) for i, text in enumerate(TEXTS)]


MakeHead = Callable[..., Path]


@pytest.fixture(scope="session")
def make_head(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeHead:
    """`make_head(layer=2, rewards=("proxy",), shift=0.0, trunk=None)` → folder of a linear head, values about ±2."""

    def make(
        layer: int = 2, rewards: tuple[str, ...] = ("proxy",), shift: float = 0.0, trunk: str | None = None
    ) -> Path:
        head = ValueHead(size=32, rewards=rewards, layer=layer, trunk=trunk or fingerprint(tiny_model))
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            head.last.weight.copy_(torch.randn(head.last.weight.shape, generator=generator) * 0.3)
            head.last.bias.fill_(shift)
        folder = tmp_path_factory.mktemp("head")
        head.save(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def head(make_head: MakeHead) -> Path:
    return make_head()


Run = Callable[..., list[Response]]


@pytest.fixture
def decode(policy: Policy, prompts: list[tuple[str, list[int]]]) -> Run:
    """`decode(guide=None, samples=2, rows=4, seed=0, **sampling)` → responses."""

    def run(
        guide: ScalarValue | None = None,
        samples: int = 2,
        rows: int = 4,
        seed: int = 0,
        only: list[tuple[str, list[int]]] | None = None,
        **settings: float,
    ) -> list[Response]:
        sampling = Sampling(**{"max_new_tokens": 6, **settings})  # type: ignore[arg-type]
        steering = Unguided(sampling.greedy) if guide is None else guide.open(policy, sampling)
        return Engine(policy, sampling, steering, seed=seed, rows=rows).run(only or prompts, samples)

    return run
