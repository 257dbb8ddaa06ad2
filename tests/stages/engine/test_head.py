"""From final hidden states to logits, the cap included; other rules are refused."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from stages.engine.head import Head, require_known_head
from stages.engine.loaded import LoadedLM
from stages.errors import BadInput


def test_a_cap_by_hand() -> None:
    """c·tanh(z / c), c = 30: z = 30 → 30·.7616 = 22.85, z = 0 → 0, z = −3000 → −30. Without a cap z stays."""
    logits = torch.tensor([30.0, 0.0, -3000.0])
    assert Head(nn.Identity(), 30.0)(logits).tolist() == pytest.approx([30 * math.tanh(1), 0, -30])
    assert Head(nn.Identity(), 30.0)(logits)[0].item() == pytest.approx(22.848, abs=1e-3)
    assert Head(nn.Identity())(logits).tolist() == logits.tolist()


@torch.inference_mode()
def test_the_head_of_a_family_with_a_cap_gives_its_logits(make_family: Callable[..., LoadedLM]) -> None:
    model = make_family("gemma2 eager").model
    model.config.final_logit_softcapping = 0.5  # its own, 30, would hardly touch logits as small as these
    ids = torch.tensor([[5, 6, 7]])
    states, head = model.base_model(input_ids=ids, use_cache=False).last_hidden_state, Head.of(model)
    assert head.cap == 0.5
    expected = model(input_ids=ids, use_cache=False).logits
    assert torch.allclose(head(states), expected, atol=1e-5)
    assert not torch.allclose(Head(head.embedding)(states), expected, atol=1e-2)
    require_known_head(model, "policy.folder")


def changed(model: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy of a model whose logits are changed after its head."""
    model = copy.deepcopy(model)
    forward = model.forward

    def after(*args: Any, **given: Any) -> Any:
        out = forward(*args, **given)
        out.logits = change(out.logits)
        return out

    model.forward = after
    return model


def test_logits_that_are_scaled_after_the_head_are_refused(policy: LoadedLM) -> None:
    require_known_head(policy.model, "guide.tuned.folder")
    require_known_head(changed(policy.model, lambda logits: logits * 1.0), "guide.tuned.folder")
    with pytest.raises(BadInput) as error:
        require_known_head(changed(policy.model, lambda logits: logits * 0.5), "guide.tuned.folder")
    assert str(error.value) == (
        "guide.tuned.folder: this architecture scales or caps its logits after the head; use one that does not"
    )


def test_weights_that_are_not_finite_are_no_question_of_the_head(policy: LoadedLM) -> None:
    """Decoding names them, with the step: here both ways give NaN."""
    model = copy.deepcopy(policy.model)
    model.base_model.norm.weight.fill_(math.nan)
    require_known_head(model, "policy.folder")
