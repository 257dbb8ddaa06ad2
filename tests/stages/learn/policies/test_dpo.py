"""Direct Preference Optimization: which pairs it makes, what it learns, what it saves, what it refuses."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages.engine.language_model import load_model, load_tokenizer
from stages.engine.prompts import encode_prompt
from stages.errors import BadInput
from stages.learn.policies import dpo
from stages.learn.policies.dpo import Dpo, Pair, pair_logprobs, pair_losses, reference_logprobs
from stages.records import Prompt
from stages.runtime import Runtime

EOS = 2
GOOD, BAD = 270, 280
"""The tokens of the toy rollouts, whose reward is the share of GOOD ones."""


@pytest.fixture(scope="session")
def labels(toy: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy(tmp_path_factory.mktemp("pairs"))


def train(labels: Path, base: Path, out: Path, runtime: Runtime | None = None, **fields) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "epochs": 2,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "dtype": "float32",
        "lora_rank": 4,
        "top_layers": 0,
    } | fields
    Dpo(labels=labels, prompts=labels, base=base, runtime=runtime or Runtime(rows=9), **settings).run(out)
    return out


def test_the_loss_starts_at_log_2_and_padding_plays_no_part(tiny_model: Path):
    model = load_model(tiny_model, dtype="float32", device="cpu")
    pairs = [Pair([5, 9, 17], [30, 2], [31, 32, 33, 34, 35, 2]), Pair([40], [41, 2], [2])]
    reference = reference_logprobs(model, pairs, rows=4)
    alone = torch.cat([reference_logprobs(model, [pair], rows=1) for pair in pairs], dim=1)
    assert torch.allclose(reference, alone, atol=1e-5)
    losses = pair_losses(model, pairs, reference, beta=0.3)
    assert losses.tolist() == pytest.approx([np.log(2)] * 2, abs=1e-5)


def test_log_probabilities_by_hand(tiny_model: Path):
    model = load_model(tiny_model, dtype="float32", device="cpu")
    (found,) = pair_logprobs(model, [Pair([5, 9], [30, 2], [31])]).T
    for response, logprob in zip(([30, 2], [31]), found.tolist(), strict=True):
        logprobs = model(input_ids=torch.tensor([[5, 9, *response]])).logits[0].log_softmax(-1)
        expected = sum(float(logprobs[1 + i, token]) for i, token in enumerate(response))
        assert logprob == pytest.approx(expected, rel=1e-5)


def test_prefers_what_is_rewarded(tmp_path: Path, labels: Path, tiny_model: Path, figures):
    out = train(labels, tiny_model, tmp_path, figures[0], heldout=0.2)
    figure = figures[1]
    assert figure["heldout_accuracy"] > 0.9
    assert figure["heldout_loss"] < 0.5  # log 2 = .693 at the start
    assert figure["train_flops"] > figure["train_tokens"] > 0
    policy, tokenizer = load_model(out, dtype="float32", device="cpu"), load_tokenizer(out)
    base = load_model(tiny_model, dtype="float32", device="cpu")
    start = encode_prompt(tokenizer, Prompt(id="x", part="test", text="the film "))
    for model, least, most in ((base, -5.0, 5.0), (policy, 1.0, 50.0)):
        logits = model(input_ids=torch.tensor([start])).logits[0, -1]
        assert least < float(logits[GOOD] - logits[BAD]) < most


def test_a_seed_fixes_the_weights_and_only_the_top_is_changed_where_asked(
    tmp_path: Path, labels: Path, tiny_model: Path
):
    def run(name: str, seed: int) -> dict[str, torch.Tensor]:
        return load_file(
            train(labels, tiny_model, tmp_path / name, seed=seed, epochs=0.3, top_layers=1) / "model.safetensors"
        )

    a, b, c = run("a", 1), run("b", 1), run("c", 2)
    before = load_file(tiny_model / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)
    changed = {name for name in before if not torch.equal(before[name], a[name])}
    assert changed
    assert all(".layers.2." in name for name in changed)


@pytest.mark.parametrize(("length_normalised", "accuracy"), [(False, 1.0), (True, 0.0)])
def test_held_out_accuracy_compares_as_the_loss_does(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, length_normalised: bool, accuracy: float
):
    """Log-ratios 4 and 3, of 8 tokens and of 2: the better response is above by its sum, below by its mean a token."""
    pairs = [Pair([5], [30] * 8, [31] * 2)]
    reference = torch.tensor([[-10.0], [-5.0]])
    monkeypatch.setattr(dpo, "reference_logprobs", lambda *_: torch.tensor([[-6.0], [-2.0]]))
    stage = Dpo(Path(), Path(), tiny_model, beta=0.5, length_normalised=length_normalised)
    figures = stage._measured(load_model(tiny_model, dtype="float32", device="cpu"), pairs, reference)
    assert figures["heldout_accuracy"] == accuracy
    assert (figures["heldout_loss"] < math.log(2)) is bool(accuracy)
    assert (figures["heldout_chosen_log_ratio"], figures["heldout_rejected_log_ratio"]) == (4.0, 3.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beta": 0.0}, r"^beta: 0.0 is not a positive"),
        ({"label_smoothing": 0.5}, r"^label_smoothing: 0.5 is not a probability below"),
        ({"pairs": 0}, r"^pairs: 0 is not a positive"),
        ({"margin": -1.0}, r"^margin: -1.0 is negative"),
        ({"margin": 99.0}, r"^margin: no two responses to one prompt are 99 standard deviations apart .*smaller"),
        ({"reward": "gold"}, r"^reward: the labels have no reward 'gold'; they have: proxy"),
        ({"heldout": 1.0}, r"^heldout: 1.0 is no share"),
        ({"top_layers": 9}, r"^top_layers: 9 is not 0 \(all\) to 3"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, labels: Path, tiny_model: Path, fields: dict, message: str):
    with pytest.raises(BadInput, match=message):
        train(labels, tiny_model, tmp_path, **fields)


def test_a_constant_reward_a_nan_and_rollouts_that_never_end_are_refused(
    tmp_path: Path, tiny_model: Path, toy: Callable[..., Path]
):
    with pytest.raises(BadInput, match=r"^labels: reward 'proxy' has one value"):
        train(toy(tmp_path / "a", lambda i, r: 1.0), tiny_model, tmp_path / "out")
    nan = toy(tmp_path / "b", lambda i, r: float("nan") if i == 21 else r)
    with pytest.raises(BadInput, match=r"^labels: reward 'proxy' is nan for sample 1 of prompt 'p05'"):
        train(nan, tiny_model, tmp_path / "out")
    cut = toy(tmp_path / "c", finished=False)
    with pytest.raises(BadInput, match=r"^labels: all 96 rollouts were cut at the token limit.*allow_truncated"):
        train(cut, tiny_model, tmp_path / "out")
    train(cut, tiny_model, tmp_path / "out", allow_truncated=True, epochs=0.1)
