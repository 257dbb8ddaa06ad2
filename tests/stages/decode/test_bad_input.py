"""What decoding refuses: one line each, that names the key and the way out."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaModel

from stages.decode.chunk_search import ChunkSearch
from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.guides.vocab_value import VocabValue
from stages.decode.scorers.explicit import ExplicitScorer
from stages.decode.scorers.implicit import ImplicitScorer
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.language_model import load_model
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.errors import BadInput
from stages.learn.values.scalar_head import fingerprint
from stages.learn.values.vocab_head import VocabHead
from stages.records import Prompt

Prompts = list[tuple[str, list[int]]]


def line(act: Callable[[], Any]) -> str:
    with pytest.raises(BadInput) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize(
    ("key", "what"), [("beams", "beams"), ("successors", "successors of a beam"), ("chunk", "tokens")]
)
def test_beams_successors_and_chunk_are_positive(key: str, what: str, size: int) -> None:
    assert line(ChunkSearch(**{key: size}).check) == f"search.{key}: {size} is not a positive number of {what}"


@pytest.mark.parametrize("k", [0, -1])
def test_candidates_are_positive(k: int) -> None:
    assert line(ScalarValue(Path("x"), k=k).check) == f"guide.k: {k} is not a positive number of candidates"
    assert line(VocabValue(Path("x"), k=k).check).startswith(f"guide.k: {k} is not a positive number of candidates; ")


@pytest.mark.parametrize("kind", ["scalar", "vocab"])
def test_candidates_fit_the_vocabulary(policy: LoadedLM, head: Path, vocab_head: Path, kind: str) -> None:
    size = policy.vocabulary
    guide: Any = (ScalarValue(head, k=size + 1), VocabValue(vocab_head, k=size + 1))[kind == "vocab"]
    assert line(lambda: guide.open(Lanes(policy), Sampling())) == (
        f"guide.k: {size + 1} candidates, but the vocabulary has {size} tokens; choose k between 1 and {size}"
    )


def test_strengths_match_the_values(policy: LoadedLM, make_head: Any, vocab_head: Path) -> None:
    two = make_head(rewards=("proxy", "length"))
    lanes = Lanes(policy)
    assert line(lambda: ScalarValue(two, beta=[1.0, 2.0, 3.0]).open(Lanes(policy), Sampling())) == (
        f"guide.beta: 3 strengths for 2 values of {two} (proxy, length); give one each"
    )
    assert line(
        lambda: ScalarValue(two, beta=[1.0], reward=["proxy", "length"]).open(Lanes(policy), Sampling())
    ).startswith("guide.beta: 1 strengths for 2 values of ")
    assert line(lambda: ExplicitScorer(two, weights=[1.0, 2.0, 3.0]).open(lanes)).startswith(
        "search.scorer.weights: 3 strengths for 2 values of "
    )
    wide: Any = VocabValue(vocab_head, beta=[1.0, 2.0])  # type: ignore[arg-type]
    assert line(wide.check).startswith("guide.beta: 2 strengths for the one value of a head over the vocabulary")
    assert line(lambda: ExplicitScorer(vocab_head, weights=[1.0, 2.0]).open(lanes)).startswith(
        "search.scorer.weights: 2 strengths for the one value"
    )
    guides = [ScalarValue(two, beta=[1.0, 1.0])] * 2
    assert line(lambda: Sum(guides, [1.0]).check()) == "guide.weights: 1 weights for 2 guides; give one each"


@pytest.mark.parametrize("make", [ScalarValue, VocabValue, ExplicitScorer])
def test_a_model_without_a_head_is_no_value(policy: LoadedLM, small_model: Path, make: Any) -> None:
    scorer = make is ExplicitScorer
    found = line(lambda: make(small_model).open(Lanes(policy), *(() if scorer else (Sampling(),))))
    assert found.startswith(f"{'search.scorer' if scorer else 'guide'}.folder: {small_model} holds no value ")
    assert "; train one with" in found


# vocabularies


def test_models_of_other_vocabularies_are_both_named(policy: LoadedLM, strange_model: Path, make_head: Any) -> None:
    other = len(AutoTokenizer.from_pretrained(strange_model))
    both = (
        f"the vocabulary of {strange_model} ({other} tokens) is not that of the policy {policy.folder} "
        f"({policy.vocabulary} tokens); token by token they cannot be combined"
    )
    tuned = ImplicitValue(CausalLM(strange_model))
    value = ScalarValue(make_head(layer=1, size=16, trunk=fingerprint(strange_model)), model=CausalLM(strange_model))
    assert line(lambda: tuned.open(Lanes(policy), Sampling())) == f"guide.tuned.folder: {both}"
    assert line(lambda: value.open(Lanes(policy), Sampling())) == f"guide.model.folder: {both}"
    assert line(lambda: Sum([tuned]).open(Lanes(policy), Sampling())) == f"guide.guides.0.tuned.folder: {both}"


def test_a_head_of_another_vocabulary_is_refused(policy: LoadedLM, tiny_model: Path, tmp_path: Path) -> None:
    VocabHead(size=32, vocabulary=7, reward="proxy", layer=2, trunk=fingerprint(tiny_model)).save(tmp_path)
    assert line(lambda: VocabValue(tmp_path).open(Lanes(policy), Sampling())) == (
        f"guide.folder: the value model in {tmp_path} scores 7 tokens, but the model {policy.folder} has "
        f"{policy.vocabulary}; train one for it"
    )


# one model, asked for in two ways


@pytest.mark.parametrize(
    ("settings", "key", "asked", "loaded"),
    [
        ({"dtype": "bfloat16"}, "dtype", "bfloat16", "float32"),
        ({"dtype": "nonsense"}, "dtype", "nonsense", "float32"),
        ({"device": "cuda:1"}, "device", "cuda:1", "cpu"),
        ({"quantisation": "4bit"}, "quantisation", "4bit", "None"),
    ],
)
def test_the_policy_is_not_asked_for_with_other_settings(
    policy: LoadedLM, head: Path, settings: dict[str, Any], key: str, asked: str, loaded: str
) -> None:
    """What is asked for would be ignored: the policy's own lane serves."""
    model = CausalLM(policy.folder, **settings)
    said = f"{asked} was asked for, but {policy.folder} is loaded already with {loaded}, for all that read it; use that"
    lanes = Lanes(policy)
    assert line(lambda: ImplicitValue(model).open(Lanes(policy), Sampling())) == f"guide.tuned.{key}: {said}"
    assert line(lambda: ScalarValue(head, model=model).open(Lanes(policy), Sampling())) == f"guide.model.{key}: {said}"
    assert line(lambda: ImplicitScorer(CausalLM(policy.folder), model).open(lanes)).startswith(
        f"search.scorer.untuned.{key}: {asked} was asked for"
    )


def test_another_model_is_not_asked_for_in_two_ways(policy: LoadedLM, tuned_model: Path, tuned_top: Path) -> None:
    """A model of its own, and one that branches off the policy."""
    first = ImplicitValue(CausalLM(tuned_model))
    for other, key in ((CausalLM(tuned_model, "bfloat16"), "dtype"), (CausalLM(tuned_model, device="cuda"), "device")):
        found = line(lambda other=other: Sum([first, ImplicitValue(other)]).open(Lanes(policy), Sampling()))
        assert found.startswith(f"guide.guides.1.tuned.{key}: ")
    lanes = Lanes(policy)
    lanes.tap(CausalLM(tuned_top), 2, "guide.model", eager=True)
    assert len(lanes.all) == 1
    again = line(lambda: lanes.tap(CausalLM(tuned_top, "bfloat16"), 2, "guide.model", eager=True))
    assert again.startswith(
        f"guide.model.dtype: bfloat16 was asked for, but {tuned_top} is loaded already with float32"
    )


def test_the_same_settings_in_other_words_are_the_same_lane(policy: LoadedLM, tuned_model: Path) -> None:
    lanes = Lanes(policy)
    for model in (None, CausalLM(policy.folder), CausalLM(policy.folder, device="cpu:0")):
        assert lanes.join(model, "guide.tuned", eager=True) is lanes.policy
    first = lanes.join(CausalLM(tuned_model), "guide.tuned", eager=True)
    for model in (CausalLM(tuned_model, device="cpu"), CausalLM(Path(str(tuned_model)), "float32", "cpu:0")):
        assert lanes.join(model, "guide.tuned", eager=True) is first


def test_a_head_over_the_vocabulary_is_of_one_reward(policy: LoadedLM, vocab_head: Path) -> None:
    assert line(lambda: ExplicitScorer(vocab_head, reward="nosuch").open(Lanes(policy))) == (
        "search.scorer.reward: the value model has no reward 'nosuch'; it has proxy"
    )
    for reward in (None, "proxy", ["proxy"]):
        ExplicitScorer(vocab_head, reward=reward).open(Lanes(policy))


# room


def test_a_prompt_needs_room_in_every_models_context(
    policy: LoadedLM, make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    """The policy holds 256 tokens, the tuned model 12."""
    narrow = make_tiny_model(tmp_path / "narrow", seed=4, context=12)
    text = "an honest story told with warmth and patience"
    asked = [Prompt(id=name, part="test", text=one) for name, one in (("short", "the film"), ("long", text))]
    encoded = [(one.id, list(policy.tokenizer(one.text)["input_ids"])) for one in asked]
    sampling = Sampling(max_new_tokens=5)
    lanes = Lanes(policy)
    terms = ImplicitValue(CausalLM(narrow)).open(lanes, sampling)
    engine = Engine(lanes, Draw(sampling, 0, 4), terms)
    length = len(encoded[1][1])
    assert length > 7
    assert line(lambda: engine.run(encoded, 1, asked)) == (
        f"prompts: prompt 'long' has {length} tokens and 5 are to be generated, but the model's context holds 12; "
        "shorten the prompt or set a smaller max_new_tokens"
    )
    assert len(engine.run(encoded[:1], 1, asked[:1])) == 1


# positions by the cache's slots

SIZES = {"vocab_size": 400, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SLOTTED: dict[str, tuple[dict[str, Any], str]] = {
    "mpt": (
        {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
        "this architecture does not take positions as they are given (states of candidates beside each other are ",
    ),
    "bloom": (
        {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        "this architecture does not step over a cache with padding (",
    ),
    "falcon": (
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
        "this architecture does not step over a cache with padding (",
    ),
    "gpt_neo": (
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        "its local attention counts a window by slots of the cache; use another model",
    ),
}
"""Families whose attention knows a token by its slot (ALiBi, a window), and what is said of them."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", SLOTTED)
def test_a_model_that_counts_positions_by_slots_is_refused_as_it_is_loaded(
    kind: str, dtype: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Of candidates beside each other the first alone would be right."""
    settings, why = SLOTTED[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **settings))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    said = line(lambda: CausalLM(tmp_path, dtype).load("cpu", "guide.tuned"))
    assert said.startswith(f"guide.tuned.folder: {why}")
    assert said.endswith("use another model")


def test_the_trial_of_a_load_is_three_short_forwards(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the one token that shows the head: plain, padded prompts, candidates."""
    fed: list[tuple[int, ...]] = []
    plain = LlamaModel.forward

    def forward(self: Any, input_ids: Any = None, **given: Any) -> Any:
        fed.append(tuple(input_ids.shape))
        return plain(self, input_ids, **given)

    monkeypatch.setattr(LlamaModel, "forward", forward)
    CausalLM(tiny_model).load("cpu")
    assert fed == [(1, 1), (4, 3), (2, 2), (2, 6)]


# NaN: which model, which step


def broken(source: Path, folder: Path, layer: int) -> Path:
    """A copy of a model with one weight of a layer NaN."""
    model = load_model(source, dtype="float32", device="cpu")
    with torch.no_grad():
        model.base_model.layers[layer].mlp.down_proj.weight[0, 0] = math.nan
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def failure(lanes: Lanes, prompts: Prompts, terms: Terms) -> str:
    with pytest.raises(FloatingPointError) as error:
        Engine(lanes, Draw(Sampling(max_new_tokens=3), 0, 8), terms).run(prompts, 1)
    return str(error.value)


def test_weights_that_are_not_finite_are_found_in_each_model(
    policy: LoadedLM, prompts: Prompts, tiny_model: Path, tuned_model: Path, make_head: Any, tmp_path: Path
) -> None:
    where = f"at step 0 of prompt 'p0', sample 0 (policy {policy.folder})"
    base = CausalLM(broken(tiny_model, tmp_path / "base", 2)).load("cpu")
    assert failure(Lanes(base), prompts, Terms()) == (
        f"logits are not finite at step 0 of prompt 'p0', sample 0 (policy {tmp_path / 'base'})"
    )
    lanes = Lanes(policy)
    tuned = ImplicitValue(CausalLM(broken(tuned_model, tmp_path / "tuned", 0))).open(lanes, Sampling())
    assert failure(lanes, prompts, tuned) == (
        f"logits of {tmp_path / 'tuned'} or {policy.folder} are not finite {where}"
    )
    for name, source, layer, count in (("apart", tuned_model, 0, 2), ("top", tiny_model, 1, 1)):
        model = broken(source, tmp_path / name, layer)
        head = make_head(trunk=fingerprint(model))
        shutil.copytree(model, head / "model")
        lanes = Lanes(policy)
        terms = ScalarValue(head, k=4).open(lanes, Sampling())
        assert len(lanes.all) == count
        assert failure(lanes, prompts, terms) == f"values of {head} are not finite {where}"
