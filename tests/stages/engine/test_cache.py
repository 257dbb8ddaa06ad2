"""The cache against fresh forwards: left padding, candidates, keep, select, refill and moves; several attentions."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

from stages.decode.chunk_lane import ChunkLane, Written
from stages.engine.engine import Engine
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.sampling import Draw, Sampling
from stages.engine.trial import require_known_architecture

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
def test_a_chunk_read_at_once_equals_fresh_forwards(any_policy: LoadedLM) -> None:
    """Chunks of 5, 3 and 5 tokens behind prompts of 7 and 2, past every window; rows repeat, permute, and end early."""
    policy, draw = any_policy, torch.Generator().manual_seed(3)
    lane = Lane(policy)
    lane.wants_logits = True
    lane.tap(1)
    lane.prompts = [torch.randint(3, policy.vocabulary, (n,), generator=draw).tolist() for n in (7, 2)]
    lane.begin(4, 16, 5)
    ready = lane.prefill([0, 1])
    lane.enter([(ready[0], 1), (ready[1], 2)], 7)
    chunk_lane = ChunkLane(lane)
    chunk_lane.enter([0, 1, 1])
    which, rows = [0, 1, 1], [[], [], []]
    for lengths, going in (((5, 5, 2), [1, 0, 1]), ((3, 3, 3), [2, 2, 0]), ((5, 1, 5), [0])):
        for row, length in zip(rows, lengths, strict=True):
            row += torch.randint(3, policy.vocabulary, (length,), generator=draw).tolist()
        read = chunk_lane.forward([Written(row, "", False) for row in rows])
        assert read.tokens == list(lengths)
        for index, row in enumerate(rows):
            prompt = lane.prompts[which[index]]
            out = policy.model(input_ids=torch.tensor([[*prompt, *row]]), output_hidden_states=True, use_cache=False)
            states, logp = out.hidden_states[1][0], out.logits[0].double().log_softmax(-1)
            near = {"atol": TOLERANCE * float(states.abs().max()), "rtol": 0.0}
            assert torch.allclose(read.newest[0][index], states[-1], **near)
            assert torch.allclose(read.before[0][index], states[-2], **near)
            expected = sum(float(logp[len(prompt) + i - 1, token]) for i, token in enumerate(row))
            assert read.logprob[index] == pytest.approx(expected, rel=1e-5, abs=1e-3)
        chunk_lane.select(going)
        which, rows = [which[i] for i in going], [list(rows[i]) for i in going]


def test_batched_equals_one_at_a_time_past_every_window(
    any_policy: LoadedLM, prompts: list[tuple[str, list[int]]]
) -> None:
    runs = [Engine(Lanes(any_policy), Draw(Sampling(max_new_tokens=9), 0, rows)).run(prompts, 2) for rows in (1, 4, 64)]
    assert (
        [row.token_ids for row in runs[0]] == [row.token_ids for row in runs[1]] == [row.token_ids for row in runs[2]]
    )


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


def test_logits_that_are_changed_after_the_head_are_refused(tiny_model: Path) -> None:
    from stages.errors import BadInput

    class Capped(LlamaForCausalLM):
        def forward(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            out = super().forward(*args, **kwargs)
            out.logits = torch.tanh(out.logits)
            return out

    model = Capped.from_pretrained(tiny_model).eval()
    with pytest.raises(BadInput, match=r"policy\.folder: .*logits after the head"):
        require_known_architecture(
            LoadedLM(tiny_model, model, AutoTokenizer.from_pretrained(tiny_model), "policy.folder")
        )
