"""Reward models: what they learn from eighty sentences, what they store, and what they refuse."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages import records
from stages.engine.causal_lm import CausalLM
from stages.errors import BadInput
from stages.learn.loop.trainer import Trainer, TrainingRuntime
from stages.learn.rewards import classifier
from stages.learn.rewards.classifier import Classifier, ClassifierReward
from stages.learn.rewards.probe import Probe, ProbeReward
from stages.learn.rewards.tfidf import Tfidf, TfidfReward
from stages.records import Example, Prompt
from stages.reward import Costed, Reward
from stages.runtime import Runtime

TEXTS = ["the film is superb", "the film is dull", "", "the plot is thin and old and the music is empty noise"]


def prompts(openings: list[str]) -> list[Prompt]:
    return [Prompt(id=str(i), part="test", text="review: " + o, opening=o) for i, o in enumerate(openings)]


def score(reward: Reward, texts: list[str]) -> np.ndarray:
    return reward.score(prompts([""] * len(texts)), texts)


def cost(reward: Costed, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    return reward.cost(prompts([""] * len(texts)), texts)


def check_reward(reward: Reward) -> None:
    """Every reward: one float64 a response, sign by content, opening and response read as one, no batch effects."""
    scores = score(reward, TEXTS)
    assert scores.shape == (4,)
    assert scores.dtype == np.float64
    assert scores[0] > 0 > scores[1]
    assert np.isfinite(scores).all()
    assert reward.score(prompts(["the film"]), [" is superb"])[0] == pytest.approx(scores[0], abs=1e-5)
    alone = [score(reward, [text])[0] for text in TEXTS]
    assert scores == pytest.approx(alone, abs=1e-5)
    assert reward.score([], []).shape == (0,)


@pytest.fixture
def tfidf(tmp_path: Path, examples: Path, figures: tuple[Runtime, dict[str, float]]) -> Path:
    Tfidf(examples=examples, runtime=figures[0]).run(tmp_path)
    return tmp_path


def test_tfidf(tfidf: Path, figures: tuple[Runtime, dict[str, float]]):
    check_reward(TfidfReward(tfidf))
    assert [part.tolist() for part in cost(TfidfReward(tfidf), TEXTS)] == [[0] * 4, [0] * 4]  # no model runs
    assert figures[1]["examples"] == 60
    assert figures[1]["heldout_examples"] == 20
    assert figures[1]["heldout_accuracy"] > 0.9
    assert figures[1]["heldout_auc"] > 0.95
    assert sorted(path.name for path in tfidf.iterdir()) == ["tfidf.json", "tfidf.safetensors"]


def test_probe(tmp_path: Path, examples: Path, tiny_model: Path, figures: tuple[Runtime, dict[str, float]]):
    Probe(examples=examples, model=tiny_model, layer=2, C=1.0, dtype="float32", runtime=figures[0]).run(tmp_path)
    check_reward(ProbeReward(tmp_path, tiny_model))
    assert figures[1]["heldout_accuracy"] > 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probe.json", "probe.safetensors"]


@pytest.mark.parametrize(("layer", "run"), [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_a_probe_costs_the_layers_that_run_as_decoding_counts_them(
    tmp_path: Path, examples: Path, tiny_model: Path, layer: int, run: int
):
    """State n of 3 layers takes layer n + 1 too: the last state of a trunk has gone through the final norm."""
    Probe(examples=examples, model=tiny_model, layer=layer, dtype="float32").run(tmp_path)
    reward, policy = ProbeReward(tmp_path, tiny_model), CausalLM(tiny_model).load("cpu")
    tokens, flops = cost(reward, TEXTS)
    encoded = [policy.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    lengths = [1 + len(ids) for ids in encoded]  # behind a token that stands for the beginning
    assert tokens.tolist() == lengths
    norm = 32 if run == 3 else 0  # decoding counts the final norm with the last layer
    assert flops.tolist() == [
        policy.flops(n, n * (n + 1) // 2, 0, end=run) - 2 * norm * n + 2 * (32 + 1) for n in lengths
    ]
    opened = reward.cost(prompts(["the film"]), [" is superb"])
    assert [part[0] for part in opened] == [tokens[0], flops[0]]
    assert [part.shape for part in reward.cost([], [])] == [(0,), (0,)]


def test_a_classifier_costs_its_encoder_in_which_every_token_attends_to_all(
    tmp_path: Path, examples: Path, tiny_encoder: Path
):
    from transformers import AutoModel

    Classifier(examples=examples, encoder=tiny_encoder, epochs=0.1, max_tokens=8).run(tmp_path)
    tokens, flops = cost(ClassifierReward(tmp_path), TEXTS)
    assert tokens.tolist() == [6, 6, 2, 8]  # [CLS] … [SEP]; the last, of 12 words, is cut
    weights = sum(p.numel() for p in AutoModel.from_pretrained(tiny_encoder).encoder.parameters())
    # 2 FLOPs a weight and token, 4·32 for each of n² pairs in 2 layers, and a head of 32 + 1
    assert flops.tolist() == [2 * weights * n + 4 * 32 * 2 * n * n + 2 * 33 for n in (6, 6, 2, 8)]
    assert [part.shape for part in ClassifierReward(tmp_path).cost([], [])] == [(0,), (0,)]


def test_classifier(tmp_path: Path, examples: Path, tiny_encoder: Path, figures: tuple[Runtime, dict[str, float]]):
    stage = Classifier(
        examples=examples, encoder=tiny_encoder, epochs=15, learning_rate=3e-3, batch_size=16, runtime=figures[0]
    )
    stage.run(tmp_path)
    check_reward(ClassifierReward(tmp_path))
    assert figures[1]["heldout_accuracy"] > 0.8


def test_classifier_is_the_same_for_the_same_seed_and_loads_as_an_encoder(
    tmp_path: Path, examples: Path, tiny_encoder: Path
):
    from transformers import AutoModel

    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        Classifier(examples=examples, encoder=tiny_encoder, epochs=0.5, seed=seed).run(tmp_path / name)
        found.append(score(ClassifierReward(tmp_path / name), TEXTS))
    assert found[0].tolist() == found[1].tolist() != found[2].tolist()
    assert AutoModel.from_pretrained(tmp_path / "a", local_files_only=True).config.hidden_size == 32


def test_the_classifier_follows_the_one_trainer(
    tmp_path: Path, examples: Path, tiny_encoder: Path, figures, monkeypatch: pytest.MonkeyPatch
):
    def run(name: str, runtime: Runtime, learning_rate: float = 1e-3, **settings) -> dict[str, torch.Tensor]:
        out = tmp_path / name
        out.mkdir()
        fields = {"batch_size": 8, "learning_rate": learning_rate, "trainer": Trainer(**settings), "runtime": runtime}
        Classifier(examples=examples, encoder=tiny_encoder, **fields).run(out)
        return load_file(out / "model.safetensors") | load_file(out / "classifier.safetensors")

    whole = run("whole", TrainingRuntime())  # 60 texts, 8 steps
    parts = run("parts", TrainingRuntime(accumulate=3))
    assert all(torch.allclose(whole[name], parts[name], atol=1e-5) for name in whole)

    forwards: list[list[int]] = []
    plain = classifier._Training.loss

    def fails(self, indices: list[int]) -> torch.Tensor:
        forwards.append(indices)
        if len(forwards) == 7:
            raise RuntimeError("the machine fails")
        return plain(self, indices)

    monkeypatch.setattr(classifier._Training, "loss", fails)
    (kept := tmp_path / "checkpoints").mkdir()
    with pytest.raises(RuntimeError, match="the machine fails"):
        run("died", TrainingRuntime(checkpoints=kept, checkpoint_every=3))
    resumed = run("resumed", TrainingRuntime(checkpoints=kept))
    assert len(forwards) == 7 + 2  # six steps were kept
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    run("few", figures[0], max_steps=2, precision="bf16-mixed", clip=0.0, schedule="constant")
    assert figures[1]["steps"] == 2
    run("early", figures[0], learning_rate=0.5, patience=1, check_every=1)
    assert figures[1]["steps"] < 8  # the held-out loss rises at once


def test_a_probe_refuses_another_model(tmp_path: Path, examples: Path, tiny_model: Path, tiny_encoder: Path):
    import shutil

    from safetensors.torch import load_file, save_file

    Probe(examples=examples, model=tiny_model, layer=1, dtype="float32").run(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1}, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"^model: .*is not the model"):
        score(ProbeReward(tmp_path, other), TEXTS)


@pytest.mark.parametrize("kind", [Tfidf, Classifier, Probe])
def test_an_empty_part_is_refused_by_name(tmp_path: Path, examples: Path, kind: type):
    needed = {f.name: tmp_path for f in dataclasses.fields(kind) if f.name in ("model", "encoder")}
    with pytest.raises(BadInput, match=r"^part: .*'sft'; the parts are: gold, gold_heldout, proxy"):
        kind(examples=examples, part="sft", **needed).run(tmp_path)
    with pytest.raises(BadInput, match=r"^heldout: .*'none'"):
        kind(examples=examples, heldout="none", **needed).run(tmp_path)


def test_labels_that_are_all_the_same_are_refused(tmp_path: Path):
    rows = [
        Example(id=str(i), part=p, prompt="", text="x y", label=1.0) for i, p in enumerate(["proxy", "gold_heldout"])
    ]
    records.write(tmp_path / "examples.parquet", Example, rows)
    with pytest.raises(BadInput, match=r"^part: all 1 examples .* same label"):
        Tfidf(examples=tmp_path).run(tmp_path)


def test_an_unknown_pooling_is_refused(tmp_path: Path, examples: Path, tiny_model: Path):
    with pytest.raises(BadInput, match=r"^pooling: 'max'"):
        Probe(examples=examples, model=tiny_model, pooling="max").run(tmp_path)


def test_a_reward_is_cheap_to_construct_and_an_untrained_folder_is_one_line(tmp_path: Path):
    for reward in (TfidfReward(tmp_path), ProbeReward(tmp_path, tmp_path), ClassifierReward(tmp_path)):
        with pytest.raises(BadInput, match=r"^folder: .*train it with stage"):
            score(reward, TEXTS)
