"""Which models step together: one lane a model, asked for in one way, each with its own prompts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.scorers.implicit import ImplicitScorer
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Draw, Sampling
from stages.errors import BadInput
from stages.learn.values.scalar_head import fingerprint
from stages.records import Prompt


def line(act: Callable[[], Any]) -> str:
    with pytest.raises(BadInput) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


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


def test_a_quantised_policy_is_one_lane_with_what_names_it(loads: list[dict[str, Any]], tiny_model: Path) -> None:
    """Null means as the policy is; 4 bits beside its 8 would be ignored, and are refused."""
    policy = CausalLM(tiny_model, quantisation="8bit").load("cpu")
    policy.model.is_loaded_in_8bit = True  # transformers' own mark, which the stand-in does not set
    lanes = Lanes(policy)
    for quantisation in (None, "8bit"):
        assert lanes.join(CausalLM(tiny_model, quantisation=quantisation), "guide.tuned", eager=True) is lanes.policy
    with pytest.raises(BadInput, match=r"^guide\.tuned\.quantisation: 4bit was asked for, .* loaded already with 8bit"):
        lanes.join(CausalLM(tiny_model, quantisation="4bit"), "guide.tuned", eager=True)
    assert len(loads) == 1


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


# prompts


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


def test_prompts_come_one_after_the_other_and_their_indices_go_on(policy: LoadedLM, tuned_model: Path) -> None:
    """Without their texts every lane takes the policy's tokens."""
    lanes = Lanes(policy)
    other = lanes.join(CausalLM(tuned_model), "guide.tuned", eager=True)
    assert lanes.add([("a", [5, 6]), ("b", [7])], None, 4) == range(2)
    assert lanes.add([("c", (8, 9))], None, 4) == range(2, 3)
    assert lanes.ids == ["a", "b", "c"]
    assert lanes.policy.prompts == other.prompts == [[5, 6], [7], [8, 9]]
    lanes.encode([("d", [3])], None, 4)
    assert (lanes.ids, lanes.policy.prompts, other.prompts) == (["d"], [[3]], [[3]])
    assert lanes.add([("e", [4])], None, 4) == range(1, 2)


def test_another_model_encodes_the_prompts_on_its_own(policy: LoadedLM, strange_model: Path) -> None:
    """Its tokenizer knows other words; the policy's prompts stay as they are given."""
    lanes = Lanes(policy)
    strange = lanes.join(CausalLM(strange_model), "search.scorer.tuned", eager=False)
    asked = [Prompt(id="a", part="test", text="the film"), Prompt(id="b", part="test", text="so")]
    given = [(one.id, list(policy.tokenizer(one.text)["input_ids"])) for one in asked]
    lanes.add(given, asked, 4)
    assert lanes.policy.prompts == [ids for _, ids in given]
    assert strange.prompts == [list(strange.lm.tokenizer(one.text)["input_ids"]) for one in asked]
    assert strange.prompts != lanes.policy.prompts
    with pytest.raises(ValueError, match="another vocabulary needs the prompts' text"):
        lanes.add(given, None, 4)


def test_a_model_that_only_scores_steps_along_once_a_guide_asks_for_it(policy: LoadedLM, tuned_model: Path) -> None:
    lanes = Lanes(policy)
    lane = lanes.join(CausalLM(tuned_model), "search.scorer.tuned", eager=False)
    assert (lanes.all, lanes.eager) == ([lanes.policy, lane], [lanes.policy])
    assert lanes.join(CausalLM(tuned_model), "guide.tuned", eager=True) is lane
    assert lanes.eager == [lanes.policy, lane]
    lanes.join(CausalLM(tuned_model), "search.scorer.tuned", eager=False)
    assert lane.eager


def test_states_of_the_policy_and_of_another_model(policy: LoadedLM, tuned_model: Path) -> None:
    lanes = Lanes(policy)
    assert lanes.tap(None, 2, "guide.model", eager=True) == (lanes.policy, 0)
    assert lanes.tap(CausalLM(policy.folder), 1, "guide.model", eager=True) == (lanes.policy, 1)
    lane, place = lanes.tap(CausalLM(tuned_model), 1, "guide.model", eager=True)
    assert (lane.lm.folder, place, lane.taps) == (tuned_model, 0, [1])
    assert lanes.policy.taps == [2, 1]
