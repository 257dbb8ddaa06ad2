"""What guides and scorers refuse alike: one line each, that names the key and the way out."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.guides.vocab_value import VocabValue
from stages.decode.scorers.explicit import ExplicitScorer
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.language_model import load_model
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.errors import BadInput
from stages.learn.values.scalar_head import fingerprint

Prompts = list[tuple[str, list[int]]]


def line(act: Callable[[], Any]) -> str:
    with pytest.raises(BadInput) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


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


# NaN: which model, which step


def broken(source: Path, folder: Path, layer: int) -> Path:
    """A copy of a model with one weight of a layer NaN."""
    model: Any = load_model(source, dtype="float32", device="cpu")
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
