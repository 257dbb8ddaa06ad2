"""A loaded tiny policy, prompts of different lengths, and value heads on its trunk."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from stages.decode.parts import TokenGuide
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.learn.values.scalar_head import ValueHead, fingerprint
from stages.learn.values.vocab_head import VocabHead

TEXTS = [
    "the film",
    "a dull and noisy film that never",
    "two",
    "an honest story told with warmth and patience and",
    "so",
]


@pytest.fixture(scope="session")
def policy(tiny_model: Path) -> LoadedLM:
    return CausalLM(tiny_model).load("cpu")


@pytest.fixture(scope="session")
def prompts(policy: LoadedLM) -> list[tuple[str, list[int]]]:
    """(id, token ids) of five prompts of 1 to 12 tokens or so."""
    return [(f"p{i}", list(policy.tokenizer(text)["input_ids"])) for i, text in enumerate(TEXTS)]


MakeHead = Callable[..., Path]


@pytest.fixture(scope="session")
def make_head(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeHead:
    """`make_head(layer=2, rewards=("proxy",), shift=0.0, trunk=None)` → folder of a linear head, values about ±2.

    `target` and `dtype` say what it was trained on.
    """

    def make(
        layer: int = 2,
        rewards: tuple[str, ...] = ("proxy",),
        shift: float = 0.0,
        trunk: str | None = None,
        size: int = 32,
        **trained: Any,
    ) -> Path:
        head = ValueHead(size=size, rewards=rewards, layer=layer, trunk=trunk or fingerprint(tiny_model), **trained)
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


@pytest.fixture(scope="session")
def tuned_model(make_tiny_model, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """Another model of the same tokenizer, size and number of layers."""
    return make_tiny_model(tmp_path_factory.mktemp("tuned_model"), seed=1)


@pytest.fixture(scope="session")
def small_model(make_tiny_model, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """A smaller model of the same tokenizer, for values and as the untuned one."""
    return make_tiny_model(tmp_path_factory.mktemp("small_model"), seed=2, layers=2, hidden=16)


@pytest.fixture(scope="session")
def strange_model(make_tiny_model, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """A model with another tokenizer: words of one letter each, nearly."""
    return make_tiny_model(tmp_path_factory.mktemp("strange_model"), seed=3, layers=2, hidden=16, vocabulary=300)


@pytest.fixture(scope="session")
def vocab_head(tiny_model: Path, policy: LoadedLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary-wide head on layer 2 of the policy's trunk, Q about ±2."""
    head = VocabHead(size=32, vocabulary=policy.vocabulary, reward="proxy", layer=2, trunk=fingerprint(tiny_model))
    with torch.no_grad():
        head.last.weight.copy_(torch.randn(head.last.weight.shape, generator=torch.Generator().manual_seed(4)) * 0.3)
    folder = tmp_path_factory.mktemp("vocab_head")
    head.save(folder)
    return folder


Run = Callable[..., list[Response]]


@pytest.fixture
def decode(policy: LoadedLM, prompts: list[tuple[str, list[int]]]) -> Run:
    """`decode(guide=None, samples=2, rows=4, seed=0, **sampling)` → responses."""

    def run(
        guide: TokenGuide | None = None,
        samples: int = 2,
        rows: int = 4,
        seed: int = 0,
        only: list[tuple[str, list[int]]] | None = None,
        **settings: Any,
    ) -> list[Response]:
        sampling = Sampling(**{"max_new_tokens": 6, **settings})
        lanes = Lanes(policy)
        terms = Terms() if guide is None else guide.open(lanes, sampling)
        return Engine(lanes, Draw(sampling, seed, rows), terms).run(only or prompts, samples)

    return run


def fresh_step(
    policy: LoadedLM, head: ValueHead | None, prefix: list[int], guide: Any, sampling: Sampling
) -> tuple[np.ndarray, np.ndarray]:
    """(π₀, π) over the whole vocabulary after a prefix, from fresh forwards and plain numpy."""
    logits = policy.model(input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1].double().numpy()
    z = logits / sampling.temperature
    if sampling.top_k:
        z = np.where(z >= np.sort(z)[-sampling.top_k], z, -np.inf)
    p = np.exp(z - z.max())
    p /= p.sum()
    if guide is None or head is None:
        return p, p
    candidates = np.argsort(-z)[: guide.k]
    rows = torch.tensor([[*prefix, int(a)] for a in candidates])
    states = policy.model(input_ids=rows, output_hidden_states=True, use_cache=False).hidden_states
    values = head(states[head.layer][:, -1])[:, 0].double().detach().numpy()
    before = head(states[head.layer][0, -2])[0].item()  # V(s): the state one token earlier
    centre = before if guide.outside == "prefix" else values[p[candidates] > 0].mean()
    weight = np.zeros_like(p) if guide.outside == "drop" else p.copy()
    weight[candidates] = p[candidates] * np.exp(guide.beta * (values - centre))
    return p, weight / weight.sum()


@pytest.fixture(scope="session")
def oracle_step() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return fresh_step


# the families

FAMILIES: dict[str, tuple[str, ...]] = {
    "llama": (),
    "qwen2": (),
    "qwen3": ("use_sliding_window", "sliding_window", "layer_types"),
    "mistral": ("sliding_window",),
    "gemma2": ("sliding_window", "layer_types", "query_pre_attn_scalar"),
    "gemma3_text": ("sliding_window", "layer_types", "query_pre_attn_scalar"),
    "gpt2": (),
    "phi": (),
    "phi3": ("sliding_window",),
}
"""Which settings of its own each has, beside those of all."""


def family(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 3,
    heads: int = 4,
    shared: int = 2,
    window: int = 4,
    vocabulary: int | None = None,
) -> LoadedLM:
    """A tiny random model of a transformers family with the tokenizer of `folder`: "<family>" or "<family> eager".

    `shared` query heads have one key head (where the family can), every second layer's window holds `window` tokens.
    """
    kind, _, attention = name.partition(" ")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = 8 * heads
    own = {
        "use_sliding_window": True,
        "sliding_window": window,
        "layer_types": [("full_attention", "sliding_attention")[layer % 2] for layer in range(layers)],
        "query_pre_attn_scalar": 8,
    }
    settings: dict[str, Any] = {
        "vocab_size": vocabulary or len(tokenizer),
        "hidden_size": size,
        "intermediate_size": 2 * size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads if kind == "phi" else heads // shared,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **{key: own[key] for key in FAMILIES[kind]},
    }
    if kind == "gpt2":
        settings = {"n_embd": size, "n_layer": layers, "n_head": heads, "n_positions": 64}
        settings |= {"bos_token_id": 1, "eos_token_id": 2}
        settings["vocab_size"] = vocabulary or len(tokenizer)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention or "sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return LoadedLM(folder, model.eval().requires_grad_(False), tokenizer, "policy.folder")


NAMES = [*(name for name in FAMILIES if name != "gemma2"), "gemma2 eager", "llama eager", "qwen3 eager"]


@pytest.fixture(scope="session", params=NAMES)
def any_policy(request: pytest.FixtureRequest, tiny_model: Path) -> LoadedLM:
    return family(request.param, tiny_model)


@pytest.fixture(scope="session")
def make_family(tiny_model: Path) -> Callable[..., LoadedLM]:
    """`make_family(name, seed=0, layers=3, heads=4, shared=2, window=4, vocabulary=None)` → a policy."""
    return functools.partial(family, folder=tiny_model)
