"""The fine-tuned encoder as reward: what it learns from eighty sentences, what it costs, how it is trained."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages.learn.loop.trainer import Trainer, TrainingRuntime
from stages.learn.rewards import classifier
from stages.learn.rewards.classifier import Classifier, ClassifierReward
from stages.records import Prompt
from stages.reward import Reward
from stages.runtime import Runtime

Opened = Callable[[Sequence[str]], list[Prompt]]
ScoreTexts = Callable[[Reward, Sequence[str]], np.ndarray]
Check = Callable[[Reward], None]


def test_classifier(
    tmp_path: Path, check_reward: Check, examples: Path, tiny_encoder: Path, figures: tuple[Runtime, dict[str, float]]
):
    stage = Classifier(
        examples=examples, encoder=tiny_encoder, epochs=15, learning_rate=3e-3, batch_size=16, runtime=figures[0]
    )
    stage.run(tmp_path)
    check_reward(ClassifierReward(tmp_path))
    assert figures[1]["heldout_accuracy"] > 0.8


def test_a_classifier_costs_its_encoder_in_which_every_token_attends_to_all(
    tmp_path: Path, texts: list[str], opened: Opened, examples: Path, tiny_encoder: Path
):
    from transformers import AutoModel

    Classifier(examples=examples, encoder=tiny_encoder, epochs=0.1, max_tokens=8).run(tmp_path)
    tokens, flops = ClassifierReward(tmp_path).cost(opened([""] * 4), texts)
    assert tokens.tolist() == [6, 6, 2, 8]  # [CLS] … [SEP]; the last, of 12 words, is cut
    weights = sum(p.numel() for p in AutoModel.from_pretrained(tiny_encoder).encoder.parameters())
    # 2 FLOPs a weight and token, 4·32 for each of n² pairs in 2 layers, and a head of 32 + 1
    assert flops.tolist() == [2 * weights * n + 4 * 32 * 2 * n * n + 2 * 33 for n in (6, 6, 2, 8)]
    assert [part.shape for part in ClassifierReward(tmp_path).cost([], [])] == [(0,), (0,)]


def test_classifier_is_the_same_for_the_same_seed_and_loads_as_an_encoder(
    tmp_path: Path, texts: list[str], score: ScoreTexts, examples: Path, tiny_encoder: Path
):
    from transformers import AutoModel

    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        Classifier(examples=examples, encoder=tiny_encoder, epochs=0.5, seed=seed).run(tmp_path / name)
        found.append(score(ClassifierReward(tmp_path / name), texts))
    assert found[0].tolist() == found[1].tolist() != found[2].tolist()
    assert AutoModel.from_pretrained(tmp_path / "a", local_files_only=True).config.hidden_size == 32


def test_the_classifier_follows_the_one_trainer(
    tmp_path: Path, texts: list[str], examples: Path, tiny_encoder: Path, figures, monkeypatch: pytest.MonkeyPatch
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
