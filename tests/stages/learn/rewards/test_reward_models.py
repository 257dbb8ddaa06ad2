"""What every kind of reward model refuses."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.errors import BadInput
from stages.learn.rewards.classifier import Classifier, ClassifierReward
from stages.learn.rewards.probe import Probe, ProbeReward
from stages.learn.rewards.tfidf import Tfidf, TfidfReward
from stages.reward import Reward

ScoreTexts = Callable[[Reward, Sequence[str]], np.ndarray]


@pytest.mark.parametrize("kind", [Tfidf, Classifier, Probe])
def test_an_empty_part_is_refused_by_name(tmp_path: Path, examples: Path, kind: type):
    needed = {f.name: tmp_path for f in dataclasses.fields(kind) if f.name in ("model", "encoder")}
    with pytest.raises(BadInput, match=r"^part: .*'sft'; the parts are: gold, gold_heldout, proxy"):
        kind(examples=examples, part="sft", **needed).run(tmp_path)
    with pytest.raises(BadInput, match=r"^heldout: .*'none'"):
        kind(examples=examples, heldout="none", **needed).run(tmp_path)


def test_a_reward_is_cheap_to_construct_and_an_untrained_folder_is_one_line(
    tmp_path: Path, texts: list[str], score: ScoreTexts
):
    for reward in (TfidfReward(tmp_path), ProbeReward(tmp_path, tmp_path), ClassifierReward(tmp_path)):
        with pytest.raises(BadInput, match=r"^folder: .*train it with stage"):
            score(reward, texts)
