"""The value stage: which states it reads, what it learns, what it stores, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import records
from stages.engine.language_model import load_model, load_tokenizer
from stages.errors import BadInput
from stages.learn.values.head import load_head
from stages.learn.values.load import load_value
from stages.learn.values.scalar_head import ValueHead, fingerprint
from stages.learn.values.train import TrainValue
from stages.learn.values.vocab_head import VocabHead
from stages.records import Labelled, Prompt
from stages.runtime import Runtime

EOS = 2
GOOD, BAD = 270, 280
"""Two tokens of the tiny vocabulary; the toy reward is the share of GOOD ones."""


def toy_labels(folder: Path, change: Callable[[int, float], float] = lambda i, r: r, finished: bool = True) -> Path:
    """20 prompts with 12 random responses of 2 to 7 tokens each; proxy = share of GOOD, other = 10 − proxy."""
    generator = np.random.default_rng(0)
    prompts = [Prompt(id=f"p{i:02}", part="train", text="the film " * (1 + i % 3)) for i in range(20)]
    rollouts = []
    for i in range(240):
        ids = [int(token) for token in generator.choice([GOOD, BAD], size=generator.integers(1, 7))]
        reward = change(i, ids.count(GOOD) / len(ids))
        rollouts.append(
            Labelled(
                prompt_id=prompts[i % 20].id,
                sample=i // 20,
                token_ids=[*ids, EOS] if finished else ids,
                text="",
                logprob=-1.0,
                finished=finished,
                part="train",
                rewards={"proxy": reward, "other": 10 - reward},
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    records.write(folder / "prompts.parquet", Prompt, prompts)
    records.write(folder / "labels.parquet", Labelled, rollouts)
    return folder


def train(labels: Path, base: Path, out: Path, runtime: Runtime | None = None, **fields) -> ValueHead:
    out.mkdir(parents=True, exist_ok=True)
    settings = {"layer": 2, "epochs": 20, "learning_rate": 1e-2, "batch_size": 16, "dtype": "float32", "heldout": 0.25}
    stage = TrainValue(
        labels=labels, prompts=labels, base=base, runtime=runtime or Runtime(rows=9), **(settings | fields)
    )
    stage.run(out)
    return load_head(out)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_labels(tmp_path_factory.mktemp("labels"))


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_learns_what_the_rest_of_the_response_will_pay(
    tmp_path: Path, labels: Path, tiny_model: Path, figures: tuple[Runtime, dict[str, float]], head: str
):
    train(labels, tiny_model, tmp_path, figures[0], head=head)
    figure = figures[1]
    assert figure["explained_variance_end"] > 0.6
    assert figure["rank_correlation_end"] > 0.8
    assert figure["rank_correlation_middle"] > 0.3
    assert abs(figure["explained_variance_start"]) < 0.3  # nothing is known before the first token
    assert (figure["rollouts"], figure["heldout_rollouts"], figure["truncated"]) == (180, 60, 0)


def test_the_model_keeps_its_trunk_and_the_training_rewards_mean_and_deviation(
    tmp_path: Path, labels: Path, tiny_model: Path
):
    model = train(labels, tiny_model, tmp_path, rewards=["other", "proxy"], epochs=1)
    assert model.rewards == ("other", "proxy")
    assert model.trunk == fingerprint(tiny_model)
    # other = 10 − proxy: the means add up to 10, the deviations are the same
    assert float(model.mean.sum()) == pytest.approx(10, abs=1e-4)
    assert float(model.sd[0]) == pytest.approx(float(model.sd[1]), abs=1e-5)


def test_values_of_opposite_rewards_are_opposite(tmp_path: Path, labels: Path, tiny_model: Path):
    model = train(labels, tiny_model, tmp_path, rewards=["other", "proxy"])
    values = model(torch.randn(50, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(values[:, 0], -values[:, 1], atol=1e-3)


def test_batch_rows_change_nothing_and_a_seed_fixes_everything(tmp_path: Path, labels: Path, tiny_model: Path):
    hidden = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    a = train(labels, tiny_model, tmp_path / "a", Runtime(rows=3), epochs=2)(hidden)
    b = train(labels, tiny_model, tmp_path / "b", Runtime(rows=100), epochs=2)(hidden)
    c = train(labels, tiny_model, tmp_path / "c", Runtime(rows=100), epochs=2, seed=1)(hidden)
    assert torch.allclose(a, b, atol=1e-4)
    assert not torch.allclose(a, c, atol=1e-3)


def test_rollouts_that_were_all_cut_are_refused_unless_they_are_meant_to_be(
    tmp_path: Path, tiny_model: Path, figures: tuple[Runtime, dict[str, float]]
):
    cut = toy_labels(tmp_path / "cut", finished=False)
    with pytest.raises(BadInput, match=r"^labels: all 240 rollouts were cut at the token limit"):
        train(cut, tiny_model, tmp_path / "out")
    train(cut, tiny_model, tmp_path / "out", figures[0], allow_truncated=True)
    assert figures[1]["truncated"] == 1
    assert figures[1]["explained_variance_end"] > 0.6


def test_nothing_held_out_is_allowed(
    tmp_path: Path, labels: Path, tiny_model: Path, figures: tuple[Runtime, dict[str, float]]
):
    train(labels, tiny_model, tmp_path, figures[0], heldout=0.0, epochs=1)
    assert (figures[1]["rollouts"], figures[1]["heldout_rollouts"]) == (240, 0)
    assert "explained_variance" not in figures[1]


START = list(range(5, 8))


def ends(folder: Path, policy: Path) -> tuple[float, float]:
    """Values in the reward's own unit after three good tokens, and after three bad ones."""
    value = load_value(folder, policy)
    return tuple(float(value.states(START, [token] * 3 + [EOS])[-1, 0]) for token in (GOOD, BAD))  # type: ignore[return-value]


@pytest.mark.parametrize("fields", [{}, {"target": "bellman"}])
def test_a_head_over_the_vocabulary_learns_every_next_token_s_value(
    tmp_path: Path, labels: Path, tiny_model: Path, figures: tuple[Runtime, dict[str, float]], fields: dict
):
    train(labels, tiny_model, tmp_path, figures[0], head="vocab", **fields)
    good, bad = ends(tmp_path, tiny_model)
    assert good > bad + 0.5  # the rewards are 1 and 0
    assert figures[1]["rank_correlation_end"] > 0.7
    head = load_head(tmp_path)
    assert isinstance(head, VocabHead)
    assert (head.target, head.dtype) == (fields.get("target", "td_lambda"), "float32")


def test_fudge_gives_the_log_odds_of_a_reward_above_the_mean(tmp_path: Path, labels: Path, tiny_model: Path):
    head = train(labels, tiny_model, tmp_path, target="fudge")
    value = load_value(tmp_path, tiny_model)
    logits = (value.states(START, [GOOD] * 3 + [EOS]) - float(head.mean)) / float(head.sd)
    assert logits[-1, 0] > 2  # nearly certain
    assert head.target == "fudge"


@pytest.mark.parametrize("fields", [{"lora_rank": 4, "epochs": 3}, {"lora_rank": 4, "head": "vocab", "epochs": 3}])
def test_an_adapted_trunk_is_saved_beside_its_head(
    tmp_path: Path, labels: Path, tiny_model: Path, figures: tuple[Runtime, dict[str, float]], fields: dict
):
    train(labels, tiny_model, tmp_path, figures[0], **fields)
    changed = load_model(tmp_path / "model", dtype="float32", device="cpu").state_dict()
    before = load_model(tiny_model, dtype="float32", device="cpu").state_dict()
    moved = {name.split(".")[2] for name in before if not torch.equal(before[name], changed[name])}
    assert moved == {"0", "1"}  # hidden state 2 is read: the third layer lies above it
    good, bad = ends(tmp_path, tiny_model)
    assert good > bad + 0.3
    assert figures[1]["rank_correlation_end"] > 0.7
    assert load_head(tmp_path).trunk == fingerprint(tmp_path / "model")


def test_another_model_may_be_the_trunk_if_it_reads_the_same_tokens(
    tmp_path: Path, labels: Path, tiny_model: Path, make_tiny_model: Callable[..., Path]
):
    small = make_tiny_model(tmp_path / "small", seed=3, layers=2, hidden=16)
    train(labels, tiny_model, tmp_path / "out", model=small, layer=2)
    good, bad = ends(tmp_path / "out", tiny_model)
    assert good > bad + 0.3
    assert load_value(tmp_path / "out").trunk.size == 16
    narrow = make_tiny_model(tmp_path / "narrow", seed=3, layers=2, hidden=16, context=6)
    with pytest.raises(BadInput, match=r"^model: prompt 'p\d+' has \d tokens and \d are .*context holds 6; shorten"):
        train(labels, tiny_model, tmp_path / "out", model=narrow, layer=2)
    words = load_tokenizer(small)
    words.add_tokens(["<extra>"])
    words.save_pretrained(small)
    with pytest.raises(BadInput, match=r"^model: .*small has another vocabulary than"):
        train(labels, tiny_model, tmp_path / "out", model=small, layer=2)


def test_one_call_opens_a_value_and_reads_text(
    tmp_path: Path, labels: Path, tiny_model: Path, make_tiny_model: Callable[..., Path]
):
    train(labels, tiny_model, tmp_path, rewards=["other", "proxy"], epochs=2)
    value = load_value(tmp_path, tiny_model)
    found = value.score("the film ", " is dull")
    tokens = len(load_tokenizer(tiny_model)(" is dull")["input_ids"])
    assert found.shape == (tokens + 1, 2)
    assert found.sum(1) == pytest.approx([10] * len(found), abs=0.05)  # other = 10 − proxy
    card = (tmp_path / "README.md").read_text()
    assert "load_value" in card
    assert "- td_lambda: 0.95" in card
    assert str(tmp_path) not in card
    with pytest.raises(BadInput, match=r"^base: .*give the folder of π₀"):
        load_value(tmp_path)
    other = make_tiny_model(tmp_path / "other", seed=9)
    with pytest.raises(BadInput, match=r"^base: .*is not the model that the value"):
        load_value(tmp_path, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rewards": ["gold"]}, r"^rewards: the labels have no reward 'gold'; they have: other, proxy"),
        ({"rewards": []}, r"^rewards: no reward is named"),
        ({"layer": 9}, r"^layer: 9 is no layer"),
        ({"head": "tree"}, r"^head: 'tree'"),
        ({"td_lambda": 1.2}, r"^td_lambda: 1.2 is not between"),
        ({"heldout": 1.0}, r"^heldout: 1.0 is no share"),
        ({"heldout": -0.1}, r"^heldout: -0.1 is no share"),
        ({"target": "q"}, r"^target: 'q' is no target; choose one of td_lambda, fudge, soft, bellman"),
        ({"target": "bellman"}, r"^target: CD's Bellman target .* needs head=vocab"),
        ({"head": "vocab", "rewards": ["proxy", "other"]}, r"^rewards: a head over the vocabulary learns one"),
        ({"eta": 0.0}, r"^eta: 0.0 is not positive"),
        ({"lora_rank": 4, "top_layers": 3}, r"^top_layers: 3 is not 0 \(all\) to 2"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, labels: Path, tiny_model: Path, fields: dict, message: str):
    with pytest.raises(BadInput, match=message):
        train(labels, tiny_model, tmp_path, **fields)


def test_a_reward_with_one_value_is_refused(tmp_path: Path, tiny_model: Path):
    with pytest.raises(BadInput, match=r"^labels: reward 'proxy' has one value"):
        train(toy_labels(tmp_path / "in", lambda i, r: 1.0), tiny_model, tmp_path / "out")


def test_a_reward_that_is_nan_names_the_rollout(tmp_path: Path, tiny_model: Path):
    folder = toy_labels(tmp_path / "in", lambda i, r: float("nan") if i == 25 else r)
    with pytest.raises(BadInput, match=r"^labels: reward 'proxy' is nan for sample 1 of prompt 'p05'"):
        train(folder, tiny_model, tmp_path / "out")


def test_no_rollouts_are_refused(tmp_path: Path, tiny_model: Path):
    records.write(tmp_path / "labels.parquet", Labelled, [])
    records.write(tmp_path / "prompts.parquet", Prompt, [])
    with pytest.raises(BadInput, match=r"^labels: there are no labelled rollouts"):
        train(tmp_path, tiny_model, tmp_path / "out")
