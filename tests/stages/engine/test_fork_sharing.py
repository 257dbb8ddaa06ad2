"""Which models share the policy's trunk, and which step beside it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from stages.decode.guides.scalar_value import ScalarValue
from stages.engine.causal_lm import CausalLM
from stages.engine.lanes import Lanes
from stages.engine.language_model import load_model
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Sampling
from stages.engine.sections import Sections
from stages.learn.values.scalar_head import fingerprint


def copied(source: Path, to: Path, change: Callable[[Any], Any]) -> Path:
    """The model of a folder with some weights changed."""
    model = load_model(source, dtype="float32", device="cpu")
    with torch.no_grad():
        change(model.base_model)
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(source).save_pretrained(to)
    return to


def opened(guide: ScalarValue, policy: LoadedLM) -> Lanes:
    """The lanes that a guide makes around the policy."""
    lanes = Lanes(policy)
    guide.open(lanes, Sampling())
    return lanes


@pytest.mark.parametrize(
    "change",
    [
        lambda trunk: trunk.layers[0].mlp.up_proj.weight.mul_(1.5),
        lambda trunk: trunk.embed_tokens.weight[7].mul_(1.5),
        lambda trunk: trunk.norm.weight.mul_(1.5),
    ],
    ids=["the first layer", "the embeddings", "the final norm"],
)
def test_a_model_that_differs_below_or_beside_its_upper_layers_steps_beside_the_policy(
    policy: LoadedLM, tiny_model: Path, make_head: Any, tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    other = copied(tiny_model, tmp_path / "other", change)
    lanes = opened(ScalarValue(make_head(trunk=fingerprint(other)), k=4, model=CausalLM(other)), policy)
    assert [lane.lm.folder for lane in lanes.all] == [policy.folder, other]


def test_another_way_to_encode_prompts_is_another_lane(
    policy: LoadedLM, tuned_top: Path, make_head: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tuned_top, other)
    guide = ScalarValue(make_head(trunk=fingerprint(other)), k=4, model=CausalLM(other))
    assert len(opened(guide, policy).all) == 1
    (other / "chat_template.jinja").write_text("{{ messages[0].content }} is superb")
    assert len(opened(guide, policy).all) == 2


def test_other_numbers_are_another_lane(policy: LoadedLM, tuned_top: Path, make_head: Any) -> None:
    head = make_head(trunk=fingerprint(tuned_top))
    guide = ScalarValue(head, k=4, model=CausalLM(tuned_top, dtype="bfloat16"))
    assert len(opened(guide, policy).all) == 2


def test_a_copy_of_the_policy_is_the_policy(
    policy: LoadedLM, decode: Any, tiny_model: Path, head: Path, tmp_path: Path
) -> None:
    """No layer differs: the value reads the policy's own state."""
    twin = tmp_path / "twin"
    shutil.copytree(tiny_model, twin)
    guide = ScalarValue(head, k=4, beta=2.0, model=CausalLM(twin))
    assert opened(guide, policy).policy.taps == [2]
    shared, own = decode(guide), decode(ScalarValue(head, k=4, beta=2.0))
    assert [row.token_ids for row in shared] == [row.token_ids for row in own]


def test_a_branch_that_a_trial_forward_does_not_confirm_is_not_used(
    policy: LoadedLM, tuned_top: Path, make_head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An architecture whose layers hand something else on, beside their states, would give other states."""

    run = Sections.run

    def shifted(self: Sections, first: int, *args: Any, **kwargs: Any) -> dict[int, Tensor]:
        return {index: state + (0.5 if first else 0) for index, state in run(self, first, *args, **kwargs).items()}

    monkeypatch.setattr(Sections, "run", shifted)
    guide = ScalarValue(make_head(trunk=fingerprint(tuned_top)), k=4, model=CausalLM(tuned_top))
    assert len(opened(guide, policy).all) == 2
