"""From final states to logits: training optimises the distribution that decoding draws from, for every family."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from stages.engine.causal_lm import CausalLM
from stages.engine.language_model import load_model
from stages.errors import BadInput
from stages.learn.policies.dpo import Dpo
from stages.learn.policies.sft import FineTune
from stages.learn.responses import Exchange, predict, response_logprobs, token_logprobs
from stages.learn.values.train import TrainValue

SETTINGS: dict[str, dict[str, Any]] = {
    "gemma2": {"final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8, "head_dim": 8},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.0625},
}
"""What each does to its logits, and what else it needs."""


@pytest.fixture(scope="session")
def saved(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`saved(family)`: folder of a tiny random model whose logits reach far beyond ±3."""

    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        config = AutoConfig.for_model(
            kind,
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            **SETTINGS[kind],
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(20.0)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def test_training_sees_the_capped_logits_that_decoding_draws_from(saved: Callable[[str], Path]) -> None:
    folder, temperature = saved("gemma2"), 0.7
    model = load_model(folder, dtype="float32", device="cpu")
    exchange = Exchange([5, 9, 17], [30, 31, 2])
    logits = model(input_ids=torch.tensor([exchange.prompt + exchange.response])).logits[0, 2:5]  # (3, V)
    assert 2.5 < float(logits.abs().max()) <= 3  # the cap does something
    logprobs = (logits / temperature).log_softmax(-1)[range(3), exchange.response]
    predicted = predict(model, [exchange])
    assert torch.allclose(token_logprobs(model, predicted, temperature), logprobs, atol=1e-5)
    plain = logits.log_softmax(-1)
    assert float(response_logprobs(model, [exchange])) == pytest.approx(
        float(plain[range(3), exchange.response].sum()), abs=1e-5
    )
    # π₀ of Bellman's target, and the policy that decodes
    value = TrainValue(Path(), Path(), folder, dtype="float32", temperature=temperature, target="bellman", head="vocab")
    assert torch.allclose(value._distribution()(predicted.states), (logits / temperature).softmax(-1), atol=1e-6)
    assert torch.allclose(CausalLM(folder).load("cpu").logits(predicted.states), logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["granite", "cohere"])
def test_a_head_that_is_not_known_is_refused_before_training_as_before_decoding(
    kind: str, saved: Callable[[str], Path], references: Path, toy: Callable[..., Path], tmp_path: Path
) -> None:
    folder, labels = saved(kind), toy(tmp_path / "labels")
    refused = "this architecture scales or caps its logits after the head; use one that does not"
    value = TrainValue(labels, labels, folder, layer=1, dtype="float32", head="vocab", target="bellman")
    stages: dict[str, list[Callable[[], Any]]] = {
        "model": [lambda: FineTune(model=folder, prompts=references).run(tmp_path)],
        "base": [
            lambda: Dpo(labels=labels, prompts=labels, base=folder).run(tmp_path),
            lambda: value.run(tmp_path),
        ],
        "policy.folder": [lambda: CausalLM(folder).load("cpu")],
    }
    for field, runs in stages.items():
        for run in runs:
            with pytest.raises(BadInput) as error:
                run()
            assert str(error.value) == f"{field}: {refused}"
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]
