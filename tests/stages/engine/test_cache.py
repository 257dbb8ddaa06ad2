"""The cache against fresh forwards: left padding, candidates, keep, select, refill and moves; several attentions."""

import pytest
import torch
from torch import Tensor

from stages.engine.loaded import LoadedLM

TOLERANCE = 1e-5


def fresh(policy: LoadedLM, ids: list[int], layer: int) -> tuple[Tensor, Tensor]:
    """Last token's logits (V,) and hidden_states[layer] (D,), from the whole sequence without any cache."""
    out = policy.model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return out.logits[0, -1], out.hidden_states[layer][0, -1]


def assert_step_is_fresh(policy: LoadedLM, prefixes: list[list[int]], ids: Tensor, cache, layer: int) -> None:
    """Every candidate's logits and hidden state equal those of a fresh forward over prefix + candidate."""
    out = policy.step(ids, cache, [layer])
    logits = policy.logits(out.last)
    for row, prefix in enumerate(prefixes):
        for column, token in enumerate(ids[row].tolist()):
            expected_logits, expected_hidden = fresh(policy, [*prefix, token], layer)
            assert (logits[row, column] - expected_logits).abs().max() <= TOLERANCE * expected_logits.abs().max()
            assert (out.states[0][row, column] - expected_hidden).abs().max() <= TOLERANCE * expected_hidden.abs().max()


@pytest.mark.parametrize("layer", [0, 1, 3])
@torch.inference_mode()
def test_every_step_equals_a_fresh_forward(any_policy: LoadedLM, layer: int) -> None:
    policy, draw = any_policy, torch.Generator().manual_seed(layer)

    def tokens(*shape: int) -> Tensor:
        return torch.randint(3, policy.vocabulary, shape, generator=draw)

    a, b, c = tokens(7).tolist(), tokens(2).tolist(), tokens(11).tolist()
    cache = policy.cache(rows=4, capacity=24)
    source, out = policy.prefill([a, b], [layer])
    for row, prompt in enumerate((a, b)):
        logits, hidden = fresh(policy, prompt, layer)
        assert torch.allclose(policy.logits(out.last[row, 0]), logits, atol=TOLERANCE * float(logits.abs().max()))
        assert torch.allclose(out.states[0][row, 0], hidden, atol=TOLERANCE * float(hidden.abs().max()))
    cache.settle(7)
    cache.enter(source, [0, 1, 1])  # two samples of b
    prefixes = [list(a), list(b), list(b)]

    def step(width: int) -> None:
        ids = tokens(len(prefixes), width)
        assert_step_is_fresh(policy, prefixes, ids, cache, layer)
        chosen = torch.randint(width, (len(prefixes),), generator=draw)
        cache.keep(chosen)
        for row, prefix in enumerate(prefixes):
            prefix.append(int(ids[row, chosen[row]]))

    step(5)
    step(1)
    cache.select([2, 1])  # the first row has finished, the last fills its place
    prefixes = [prefixes[2], prefixes[1]]
    step(3)
    source, _ = policy.prefill([c], [layer])
    cache.settle(max(cache.longest(), len(c)))  # to the right: 5 tokens so far, the new prompt has 11
    cache.enter(source, [0])
    prefixes.append(list(c))
    step(4)
    cache.select([0, 1])
    prefixes.pop()
    assert cache.longest() == 6  # 2 + 1 + 1 + 1 + 1: padding has piled up on the left
    cache.settle(6)
    step(4)
    step(1)


@torch.inference_mode()
def test_a_prompt_longer_than_the_rows_that_enter_does_not_disturb_them(policy: LoadedLM) -> None:
    """One prefill of a long and a short prompt; only the short one enters, where the long one would not fit."""
    long, short = list(range(3, 14)), [20, 21]
    source, _ = policy.prefill([long, short])
    cache = policy.cache(rows=1, capacity=8)
    cache.settle(2)
    cache.enter(source, [1])
    assert_step_is_fresh(policy, [short], torch.tensor([[30, 31, 32]]), cache, 3)


@torch.inference_mode()
def test_select_may_permute_and_repeat_rows(policy: LoadedLM) -> None:
    """What a chunk boundary of a search with several beams needs."""
    rows = [[5, 6, 7], [8, 9], [10]]
    source, _ = policy.prefill(rows)
    cache = policy.cache(rows=3, capacity=8)
    cache.settle(3)
    cache.enter(source, [0, 1, 2])
    cache.select([1, 0, 0])
    assert_step_is_fresh(policy, [rows[1], rows[0], rows[0]], torch.tensor([[30, 31]] * 3), cache, 3)
