"""The linear probe as reward: what it learns from eighty sentences, what it costs, and what it refuses."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from stages.engine.causal_lm import CausalLM
from stages.errors import BadInput
from stages.learn.rewards.probe import Probe, ProbeReward
from stages.records import Prompt
from stages.reward import Reward
from stages.runtime import Runtime

Opened = Callable[[Sequence[str]], list[Prompt]]
ScoreTexts = Callable[[Reward, Sequence[str]], np.ndarray]
Check = Callable[[Reward], None]


def test_probe(
    tmp_path: Path, check_reward: Check, examples: Path, tiny_model: Path, figures: tuple[Runtime, dict[str, float]]
):
    Probe(examples=examples, model=tiny_model, layer=2, C=1.0, dtype="float32", runtime=figures[0]).run(tmp_path)
    check_reward(ProbeReward(tmp_path, tiny_model))
    assert figures[1]["heldout_accuracy"] > 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probe.json", "probe.safetensors"]


@pytest.mark.parametrize(("layer", "run"), [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_a_probe_costs_the_layers_that_run_as_decoding_counts_them(
    tmp_path: Path, texts: list[str], opened: Opened, examples: Path, tiny_model: Path, layer: int, run: int
):
    """State n of 3 layers takes layer n + 1 too: the last state of a trunk has gone through the final norm."""
    Probe(examples=examples, model=tiny_model, layer=layer, dtype="float32").run(tmp_path)
    reward, policy = ProbeReward(tmp_path, tiny_model), CausalLM(tiny_model).load("cpu")
    tokens, flops = reward.cost(opened([""] * 4), texts)
    encoded = [policy.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    lengths = [1 + len(ids) for ids in encoded]  # behind a token that stands for the beginning
    assert tokens.tolist() == lengths
    norm = 32 if run == 3 else 0  # decoding counts the final norm with the last layer
    assert flops.tolist() == [
        policy.flops(n, n * (n + 1) // 2, 0, end=run) - 2 * norm * n + 2 * (32 + 1) for n in lengths
    ]
    first = reward.cost(opened(["the film"]), [" is superb"])
    assert [part[0] for part in first] == [tokens[0], flops[0]]
    assert [part.shape for part in reward.cost([], [])] == [(0,), (0,)]


def test_a_probe_refuses_another_model(
    tmp_path: Path, texts: list[str], score: ScoreTexts, examples: Path, tiny_model: Path, tiny_encoder: Path
):
    import shutil

    from safetensors.torch import save_file

    Probe(examples=examples, model=tiny_model, layer=1, dtype="float32").run(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1}, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"^model: .*is not the model"):
        score(ProbeReward(tmp_path, other), texts)


def test_an_unknown_pooling_is_refused(tmp_path: Path, examples: Path, tiny_model: Path):
    with pytest.raises(BadInput, match=r"^pooling: 'max'"):
        Probe(examples=examples, model=tiny_model, pooling="max").run(tmp_path)
