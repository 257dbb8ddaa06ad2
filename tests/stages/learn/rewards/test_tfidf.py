"""The bag-of-words reward: what it learns from eighty sentences, what it stores, and what it refuses."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stages import records
from stages.errors import BadInput
from stages.learn.rewards.tfidf import Tfidf, TfidfReward
from stages.records import Example, Prompt
from stages.reward import Reward
from stages.runtime import Runtime

Opened = Callable[[Sequence[str]], list[Prompt]]
Check = Callable[[Reward], None]


@pytest.fixture
def tfidf(tmp_path: Path, examples: Path, figures: tuple[Runtime, dict[str, float]]) -> Path:
    Tfidf(examples=examples, runtime=figures[0]).run(tmp_path)
    return tmp_path


def test_tfidf(
    tfidf: Path, texts: list[str], opened: Opened, check_reward: Check, figures: tuple[Runtime, dict[str, float]]
):
    check_reward(TfidfReward(tfidf))
    assert [part.tolist() for part in TfidfReward(tfidf).cost(opened([""] * 4), texts)] == [
        [0] * 4,
        [0] * 4,
    ]  # no model runs
    assert figures[1]["examples"] == 60
    assert figures[1]["heldout_examples"] == 20
    assert figures[1]["heldout_accuracy"] > 0.9
    assert figures[1]["heldout_auc"] > 0.95
    assert sorted(path.name for path in tfidf.iterdir()) == ["tfidf.json", "tfidf.safetensors"]


def test_labels_that_are_all_the_same_are_refused(tmp_path: Path):
    rows = [
        Example(id=str(i), part=p, prompt="", text="x y", label=1.0) for i, p in enumerate(["proxy", "gold_heldout"])
    ]
    records.write(tmp_path / "examples.parquet", Example, rows)
    with pytest.raises(BadInput, match=r"^part: all 1 examples .* same label"):
        Tfidf(examples=tmp_path).run(tmp_path)
