"""One model that steps: which of its layers run for which tokens, and what that costs."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.decode.guides.scalar_value import ScalarValue
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Draw, Sampling
from stages.engine.sections import Tap
from stages.learn.values.scalar_head import fingerprint

TOLERANCE = 1e-5


def fresh(policy: LoadedLM, ids: list[int], layer: int) -> tuple[Tensor, Tensor]:
    """Last token's logits (V,) and hidden_states[layer] (D,), from the whole sequence without any cache."""
    out = policy.model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return out.logits[0, -1], out.hidden_states[layer][0, -1]


@torch.inference_mode()
def test_bfloat16_is_near_a_fresh_forward(any_policy: LoadedLM) -> None:
    """Eight bits of mantissa: 4 % of the largest number after three layers; layers above state 2 run afterwards."""
    policy = any_policy
    policy = LoadedLM(policy.folder, copy.deepcopy(policy.model).bfloat16(), policy.tokenizer, "policy.folder")
    prefix, ids = [5, 6, 7, 8, 9, 10], torch.tensor([[11, 12, 13]])
    lane = Lane(policy)
    lane.wants_logits = True
    lane.tap(2)
    lane.prompts = [prefix]
    lane.begin(1, 4, 3)
    lane.enter([(lane.prefill([0])[0], 1)], len(prefix))
    out = lane.forward(ids)
    lane.cache.keep(torch.tensor([1]))
    lane.take(out.at(torch.tensor([0]), torch.tensor([1])))
    assert lane.logits is not None
    assert lane.logits.dtype == torch.bfloat16
    logits, hidden = fresh(policy, [*prefix, 12], 2)
    for found, expected in ((lane.logits[0], logits), (lane.states[0][0], hidden)):
        assert (found - expected).abs().max() <= 0.04 * expected.abs().max()


# which layers run


Prompts = list[tuple[str, list[int]]]


@pytest.fixture
def counted(policy: LoadedLM) -> Iterator[dict[Any, int]]:
    """How many tokens each module has been given, once `watch`ed."""
    seen: dict[Any, int] = {}
    hooks = []

    def watch(name: Any, module: torch.nn.Module) -> None:
        def count(_: Any, args: tuple[Any, ...]) -> None:
            seen[name] = seen.get(name, 0) + args[0].shape[0] * args[0].shape[1]

        hooks.append(module.register_forward_pre_hook(count))

    for index, layer in enumerate(policy.sections.layers):
        watch(index, layer)
    seen["watch"] = watch  # type: ignore[assignment]
    yield seen
    for hook in hooks:
        hook.remove()


def test_the_shared_layers_run_once_and_the_policys_top_for_the_chosen_token_alone(
    policy: LoadedLM, prompts: Prompts, top_head: Path, counted: dict[Any, Any]
) -> None:
    """k = 4 and one from outside, one row of 6 tokens; the fork lies above layer 0, the value reads state 2.

    A step gives 5 tokens to layer 0 and to the tuned layer 1; then one, the chosen, to the policy's layers 1 and 2,
    but for the last step, whose token needs no logits.
    """
    name, ids = prompts[1]
    sampling = Sampling(max_new_tokens=6)
    lanes = Lanes(policy)
    terms = ScalarValue(top_head, beta=2.0, k=4).open(lanes, sampling)
    (lane,) = lanes.all
    (tap,) = lane.taps
    assert isinstance(tap, Tap)
    assert tap.branch.sections.layers[0] is policy.sections.layers[0]
    watch = counted.pop("watch")
    watch("top", tap.branch.sections.layers[1])
    counted.clear()  # a trial forward went before
    (row,) = Engine(lanes, Draw(sampling, 0, 1), terms).run([(name, ids)], 1)
    assert len(row.token_ids) == 6
    length = len(ids)
    assert counted == {0: length + 6 * 5, "top": length + 6 * 5, 1: length + 5, 2: length + 5}
    assert row.tokens == length + 6 * 5

    layer = sum(p.numel() for p in policy.sections.layers[0].parameters())  # all layers are alike
    norm = 32
    prompt_pairs, spans = length * (length + 1) // 2, [length + t for t in range(1, 7)]
    layers = 2 * layer * (4 * length + 6 * 5 * 2 + 5 * 2) + 2 * norm * (length + 5)
    attention = 4 * 32 * (4 * prompt_pairs + 2 * 5 * sum(spans) + 2 * sum(spans[:5]))
    logits = 2 * 32 * policy.vocabulary * 6
    values = 6 * 4 * 2 * (32 + 1)  # k values a step of a linear head
    assert row.flops == layers + attention + logits + values


def test_a_frozen_trunks_upper_layers_run_for_the_chosen_token_alone(
    policy: LoadedLM, prompts: Prompts, head: Path, counted: dict[Any, Any]
) -> None:
    """The head reads state 2 of 3: k = 4 candidates and one more go through layers 0 and 1."""
    counted.pop("watch")
    lanes = Lanes(policy)
    terms = ScalarValue(head, beta=2.0, k=4).open(lanes, Sampling(max_new_tokens=6))
    Engine(lanes, Draw(Sampling(max_new_tokens=6), 0, 1), terms).run(prompts[1:2], 1)
    length = len(prompts[1][1])
    assert counted == {0: length + 30, 1: length + 30, 2: length + 5}


def test_a_model_that_only_gives_states_stops_above_them(
    policy: LoadedLM, prompts: Prompts, tuned_model: Path, make_head: Any, counted: dict[Any, Any]
) -> None:
    """A value on state 1 of a model that shares nothing: its layers 1 and 2 never run."""
    guide = ScalarValue(make_head(layer=1, trunk=fingerprint(tuned_model)), k=4, model=CausalLM(tuned_model))
    lanes = Lanes(policy)
    terms = guide.open(lanes, Sampling(max_new_tokens=6))
    base, other = lanes.all
    watch = counted.pop("watch")
    for index, layer in enumerate(other.lm.sections.layers):
        watch(f"other {index}", layer)
    Engine(lanes, Draw(Sampling(max_new_tokens=6), 0, 1), terms).run(prompts[1:2], 1)
    length = len(prompts[1][1])
    assert counted == {0: length + 5, 1: length + 5, 2: length + 5, "other 0": length + 30}
    assert len(other.cache.layers) == 1
    assert len(base.cache.layers) == 3


def test_a_state_that_is_asked_for_twice_is_read_once(policy: LoadedLM) -> None:
    lane = Lane(policy)
    assert [lane.tap(layer) for layer in (2, 1, 2)] == [0, 1, 0]
    assert lane.taps == [2, 1]


def test_tokens_one_after_the_other_cost_as_much_as_what_each_sees(policy: LoadedLM) -> None:
    """Two tokens behind three see 4 and 5 positions. Where only state 1 is read, one layer runs and no head."""
    lane = Lane(policy)
    lane.prompts = [[5, 6, 7]]
    lane.tap(1)
    assert lane.sequence_flops(2, 3, 2) == policy.flops(2, 9, 0, (1,), end=1)
    lane.wants_logits = True
    assert lane.sequence_flops(2, 3, 2) == policy.flops(2, 9, 2, (1,))
    assert lane.prompt_flops(0) == policy.flops(3, 6, 1, (1,))


@torch.inference_mode()
def test_a_step_costs_what_its_rows_see(policy: LoadedLM) -> None:
    """Behind prompts of 3 and 1 tokens a new token sees 4 and 2 positions. One goes through all layers; of two
    alternatives each goes as far as state 2, and the one that is kept through layer 2 and the head afterwards."""
    lane = Lane(policy)
    lane.wants_logits = True
    lane.tap(2)
    lane.prompts = [[5, 6, 7], [8]]
    lane.begin(2, 4, 2)
    ready = lane.prefill([0, 1])
    lane.enter([(ready[0], 1), (ready[1], 1)], 3)
    assert lane.step_flops(1) == [policy.flops(1, 4, 0, (2,)), policy.flops(1, 2, 0, (2,))]
    assert lane.step_flops(2) == [policy.flops(2, 8, 0, (2,), end=2), policy.flops(2, 4, 0, (2,), end=2)]
    rows = torch.tensor([0, 1])
    out = lane.forward(torch.tensor([[9, 10], [11, 12]]))
    lane.cache.keep(rows)
    assert lane.take(out.at(rows, rows)) == [policy.flops(1, 4, 1, first=2), policy.flops(1, 2, 1, first=2)]
