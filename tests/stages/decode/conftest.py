"""A loaded tiny policy, prompts of different lengths, and value heads on its trunk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from stages.decode.engine import Engine, Response
from stages.decode.guides import TokenGuide
from stages.decode.policy import CausalLM, Policy
from stages.decode.sampling import Sampling
from stages.decode.steering import Terms
from stages.learn.value_model import ValueHead, fingerprint
from stages.learn.vocab_model import VocabHead

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
    """`make_head(layer=2, rewards=("proxy",), shift=0.0, trunk=None)` → folder of a linear head, values about ±2.

    `target` and `dtype` say what it was trained on.
    """

    def make(
        layer: int = 2,
        rewards: tuple[str, ...] = ("proxy",),
        shift: float = 0.0,
        trunk: str | None = None,
        size: int = 32,
        **trained: str,
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
def vocab_head(tiny_model: Path, policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary-wide head on layer 2 of the policy's trunk, Q about ±2."""
    head = VocabHead(size=32, vocabulary=policy.vocabulary, reward="proxy", layer=2, trunk=fingerprint(tiny_model))
    with torch.no_grad():
        head.last.weight.copy_(torch.randn(head.last.weight.shape, generator=torch.Generator().manual_seed(4)) * 0.3)
    folder = tmp_path_factory.mktemp("vocab_head")
    head.save(folder)
    return folder


Run = Callable[..., list[Response]]


@pytest.fixture
def decode(policy: Policy, prompts: list[tuple[str, list[int]]]) -> Run:
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
        terms = Terms() if guide is None else guide.open(policy, sampling)
        return Engine(policy, sampling, terms, seed=seed, rows=rows).run(only or prompts, samples)

    return run


# the families

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ONE_WINDOW = ["full_attention", "sliding_attention", "full_attention"]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"use_sliding_window": True, "sliding_window": 4, "layer_types": ONE_WINDOW},
    "mistral": {"sliding_window": 4},
    "gemma2": {"sliding_window": 4, "layer_types": ONE_WINDOW, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 4, "layer_types": ONE_WINDOW, "query_pre_attn_scalar": 8},
    "gpt2": {},
    "phi": {"num_key_value_heads": 4},
    "phi3": {"sliding_window": 4},
}


def family(name: str, folder: Path) -> Policy:
    """A tiny random model of a transformers family with the tokenizer of `folder`; windows hold 4 tokens."""
    kind, _, attention = name.partition(" ")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = {**SIZE, "vocab_size": len(tokenizer), **FAMILIES[kind]}
    if kind == "gpt2":
        settings = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention or "sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return Policy(folder, model.eval(), tokenizer, "policy.folder")


NAMES = [*(name for name in FAMILIES if name != "gemma2"), "gemma2 eager", "llama eager", "qwen3 eager"]


@pytest.fixture(scope="session", params=NAMES)
def any_policy(request: pytest.FixtureRequest, tiny_model: Path) -> Policy:
    return family(request.param, tiny_model)
