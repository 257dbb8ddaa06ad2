"""Which model's states a head reads."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.values.trunk import require_as_trained, trunk_states
from stages.engine.causal_lm import CausalLM
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead, fingerprint


def refusal(guide: ScalarValue, policy: LoadedLM) -> BadInput:
    with pytest.raises(BadInput) as error:
        guide.open(Lanes(policy), Sampling())
    assert "\n" not in error.value.problem
    return error.value


def test_a_value_of_another_trunk_is_refused(policy: LoadedLM, make_head) -> None:
    error = refusal(ScalarValue(make_head(trunk="0" * 64)), policy)
    assert error.field == "guide.folder"
    assert "another trunk" in error.problem


# which model


def head_of(folder: Path) -> ValueHead:
    return ValueHead.load(folder)


def test_a_head_without_a_model_reads_the_policy(policy: LoadedLM, head: Path) -> None:
    lanes = Lanes(policy)
    assert trunk_states(lanes, head, None, head_of(head), "guide", eager=True) == (lanes.policy, 0)
    assert (lanes.all, lanes.policy.taps) == ([lanes.policy], [2])


def test_the_model_beside_the_head_is_its_trunk_unless_another_is_named(
    policy: LoadedLM, tuned_model: Path, small_model: Path, make_head: Any
) -> None:
    folder = make_head(layer=1, trunk=fingerprint(tuned_model))
    shutil.copytree(tuned_model, folder / "model")
    lanes = Lanes(policy)
    lane, place = trunk_states(lanes, folder, None, head_of(folder), "guide", eager=True)
    assert (lane.lm.folder, place, lane.taps) == (folder / "model", 0, [1])
    named, _ = trunk_states(lanes, folder, CausalLM(tuned_model), head_of(folder), "guide", eager=True)
    assert named.lm.folder == tuned_model
    with pytest.raises(BadInput) as error:
        trunk_states(lanes, folder, CausalLM(small_model), head_of(folder), "guide", eager=True)
    assert str(error.value) == (
        f"guide.folder: the value model in {folder} was trained on another trunk than {small_model}; "
        "train a value model for it, or name its own in `model`"
    )


# as it was trained


@pytest.mark.parametrize(
    ("trained", "transform", "said"),
    [
        ({"target": "td_lambda"}, "log_sigmoid", "guide.transform: log_sigmoid takes FUDGE's logits, and this value "),
        (
            {"dtype": "bfloat16"},
            "identity",
            "guide.folder: the value was trained on states in bfloat16 and would ",
        ),
    ],
)
def test_a_head_is_read_as_it_was_trained(policy: LoadedLM, trained: dict[str, str], transform: str, said: str) -> None:
    def require(**settings: str) -> None:
        made: Any = ValueHead(size=32, rewards=("proxy",), layer=2, **settings)  # type: ignore[arg-type]
        require_as_trained(made, Lanes(policy).policy, transform, "guide")

    with pytest.raises(BadInput) as error:
        require(**trained)
    assert str(error.value).startswith(said)
    require(**({"target": "fudge"} if "target" in trained else {"dtype": "float32"}))
    require(target="fudge")  # a head that does not say its dtype
