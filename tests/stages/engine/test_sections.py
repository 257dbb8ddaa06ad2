"""Layers run in sections: each state is that of the whole model."""

from typing import Any

import pytest
import torch
from torch import nn

from stages.engine.loaded import LoadedLM
from stages.engine.sections import Branch, Sections, Slot, Tap, branch_ends, forks
from stages.errors import BadInput

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def whole(policy: LoadedLM) -> tuple[torch.Tensor, ...]:
    return policy.trunk(input_ids=IDS, output_hidden_states=True, use_cache=False).hidden_states


@torch.inference_mode()
def test_all_layers_give_every_state_that_is_wanted(any_policy: LoadedLM) -> None:
    layers = any_policy.layers
    found = any_policy.sections.run(0, layers, range(layers), input_ids=IDS, use_cache=False)
    assert sorted(found) == [0, 1, 2, 3]
    for state, expected in zip((found[index] for index in range(layers + 1)), whole(any_policy), strict=True):
        assert torch.allclose(state, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("border", [1, 2])
@torch.inference_mode()
def test_two_sections_one_after_the_other_are_the_whole(any_policy: LoadedLM, border: int) -> None:
    """The lower one ends at state `border`; the upper one starts from it, and no layer below runs again."""
    sections, layers = any_policy.sections, any_policy.layers
    runs: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: runs.append(index))
        for index, layer in enumerate(sections.layers)
    ]
    lower = sections.run(0, border, input_ids=IDS, use_cache=False)
    upper = sections.run(border, layers, given=lower[border], use_cache=False)
    for hook in hooks:
        hook.remove()
    assert runs == [0, 1, 2]
    assert (list(lower), list(upper)) == ([border], [layers])
    expected = whole(any_policy)[-1]
    assert torch.allclose(upper[layers], expected, atol=1e-5 * float(expected.abs().max()))


@torch.inference_mode()
def test_another_trunks_layer_runs_in_the_place_of_its_own(policy: LoadedLM) -> None:
    """Layer 2 of this trunk in the place of its layer 1: states up to 1 stay, state 2 is layer 2's of state 1."""
    swapped = Sections(policy.trunk, 3, "policy.folder", {1: policy.sections.layers[2]})
    found = swapped.run(0, 2, [1], input_ids=IDS, use_cache=False)
    states = whole(policy)
    assert torch.allclose(found[1], states[1], atol=1e-5)
    expected = policy.sections.run(2, 3, given=states[1], use_cache=False)[3]  # layer 2, then the final norm
    assert torch.allclose(policy.trunk.norm(found[2]), expected, atol=1e-4)
    assert not torch.allclose(found[2], states[2], atol=1e-2)


def test_the_trunk_itself_stays_as_it_is(policy: LoadedLM) -> None:
    assert not any(isinstance(module, Slot) for module in policy.trunk.modules())
    assert sum(isinstance(module, Slot) for module in policy.sections.model.modules()) == 3


def test_a_trunk_whose_layers_stand_in_no_list_is_refused() -> None:
    trunk = nn.ModuleDict({"layers": nn.ModuleList([nn.Identity()] * 2)})
    with pytest.raises(BadInput) as error:
        Sections(trunk, 3, "guide.tuned.folder")
    assert error.value.field == "guide.tuned.folder"
    assert error.value.problem == "this architecture keeps its 3 layers in no list; use one that does"


def test_what_taps_need_of_the_trunk_and_of_each_branch() -> None:
    """State 2 of the trunk; of a branch that leaves it at 1 states 2 and 4; of one that leaves at 3 state 5."""
    upper: Any = "other layers"
    one, other = Branch(1, upper), Branch(3, upper)
    taps = [2, Tap(one, 4), Tap(one, 2), Tap(other, 5)]
    assert forks(taps) == [2, 1, 1, 3]
    ends = branch_ends(taps)
    assert [(branch.first, end) for branch, end in ends.items()] == [(1, 4), (3, 5)]
