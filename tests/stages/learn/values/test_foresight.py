"""Values against Monte-Carlo means: a known truth is found, intervals hold it, bad input is one line."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from stages import records
from stages.engine.causal_lm import CausalLM
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.values.foresight import Foresight, interval, rank_correlation
from stages.learn.values.load import load_value
from stages.learn.values.scalar_head import ValueHead, fingerprint
from stages.learn.values.vocab_head import VocabHead
from stages.records import Prompt
from stages.runtime import Runtime


@dataclass
class PromptLength:
    """What the prompt alone decides: the Monte-Carlo mean is known without drawing."""

    def score(self, prompts, responses):
        return np.array([float(len(p.text)) for p in prompts])


def payload(folder: Path, policy: Path, size: int = 32) -> Path:
    """Eight prompts of different lengths, and a value head that says 0 everywhere."""
    prompts = [Prompt(id=f"p{i}", part="test", text="the film " * (1 + i)) for i in range(8)]
    records.write(folder / "prompts.parquet", Prompt, prompts)
    head = ValueHead(size=size, rewards=["proxy"], layer=1, trunk=fingerprint(policy), dtype="float32")
    head.save(folder)
    return folder


def stage(folder: Path, policy: Path, runtime: Runtime | None = None, **fields) -> Foresight:
    settings = {"parts": ["test"], "samples": 2, "draws": 50, "sampling": Sampling(max_new_tokens=6)} | fields
    return Foresight(
        prompts=folder,
        policy=CausalLM(policy),
        value=folder,
        reward=PromptLength(),
        runtime=runtime or Runtime(rows=9),
        **settings,
    )


def test_what_the_prefix_pays_is_found_and_an_untrained_value_foresees_nothing(
    tmp_path: Path, tiny_model: Path, figures
):
    stage(payload(tmp_path, tiny_model), tiny_model, figures[0]).run(tmp_path)
    report = json.loads((tmp_path / "foresight.json").read_text())
    assert list(report) == ["start", "middle", "end"]
    for place in report.values():
        assert place["truth"] == [9.0 * (1 + i) for i in range(8)]
        assert place["correlation"]["prefix_reward"] == 1
        assert np.isnan(place["correlation"]["value"])
    assert figures[1]["end/prefix_reward_low"] == 1


def test_the_value_is_read_at_the_prefix_and_in_the_reward_s_unit(tmp_path: Path, tiny_model: Path):
    folder = payload(tmp_path, tiny_model)
    head = ValueHead.load(folder)
    torch.nn.init.ones_(head.last.bias)
    head.mean.fill_(5.0)
    head.sd.fill_(2.0)
    head.save(folder)
    stage(folder, tiny_model).run(tmp_path)
    assert json.loads((tmp_path / "foresight.json").read_text())["middle"]["value"] == pytest.approx([7.0] * 8)


def test_a_head_over_the_vocabulary_knows_no_start_and_every_later_prefix_by_its_last_token(
    tmp_path: Path, tiny_model: Path
):
    folder = payload(tmp_path, tiny_model)
    size = AutoConfig.from_pretrained(tiny_model).vocab_size
    head = VocabHead(size=32, vocabulary=size, reward="proxy", layer=1, trunk=fingerprint(tiny_model), dtype="float32")
    torch.nn.init.ones_(head.last.bias)
    head.mean.fill_(5.0)
    head.sd.fill_(2.0)
    head.save(folder)
    value = load_value(folder, tiny_model)
    assert [value.states([5, 9], response).shape for response in ([], [30], [30, 31])] == [(1, 1), (2, 1), (3, 1)]
    assert np.isnan(value.states([5, 9], [])).all()
    stage(folder, tiny_model).run(tmp_path)
    found = {place: each["value"] for place, each in json.loads((tmp_path / "foresight.json").read_text()).items()}
    assert np.isnan(found["start"]).all()
    assert found["end"] == pytest.approx([7.0] * 8)


def test_what_is_judged_is_cut_before_a_stopping_string_as_responses_are(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    judged: list[str] = []

    def score(self, prompts, responses):
        judged.extend(responses)
        return np.array([float(len(p.text)) for p in prompts])

    monkeypatch.setattr(PromptLength, "score", score)
    folder = payload(tmp_path, tiny_model)
    stage(folder, tiny_model).run(tmp_path)
    assert sum("e" in text for text in judged) > 9
    judged.clear()
    stage(folder, tiny_model, sampling=Sampling(max_new_tokens=6, stop=["e"])).run(tmp_path)
    assert len(judged) == 3 * 8 * (2 + 1)
    assert not any("e" in text for text in judged)


def test_intervals_are_of_paired_prompts():
    truth = np.arange(40.0)
    noisy = truth + np.random.default_rng(0).normal(0, 20, 40)
    bounds = interval((truth, truth, noisy), draws=200, seed=0)
    assert bounds["value"] == [1, 1]
    low, high = bounds["prefix_reward"]
    assert low < rank_correlation(truth, noisy) < high
    assert bounds["difference"][0] > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": 1}, r"^samples: 1 is too few"),
        ({"column": "gold"}, r"^column: the value has no reward 'gold'; it has proxy"),
        ({"parts": ["train"]}, r"^parts: no prompt is in part 'train'"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, tiny_model: Path, fields: dict, message: str):
    with pytest.raises(BadInput, match=message):
        stage(payload(tmp_path, tiny_model), tiny_model, **fields).run(tmp_path)
