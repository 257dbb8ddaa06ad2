"""A loaded model: what a forward gives, and what it costs."""

import math
from pathlib import Path
from types import SimpleNamespace

import torch

from stages.engine.causal_lm import CausalLM
from stages.engine.loaded import Forward, LoadedLM, parameters
from stages.engine.sections import Branch, Tap


def test_weights_packed_two_in_a_byte_count_as_what_they_stand_for(tiny_model: Path, policy: LoadedLM) -> None:
    """32 × 64 weights of four bits are 1,024 bytes."""
    packed = CausalLM(tiny_model).load("cpu").model
    projection = packed.base_model.layers[0].mlp.down_proj
    stored = torch.nn.Parameter(torch.zeros(1024, 1, dtype=torch.uint8), requires_grad=False)
    stored.quant_state = SimpleNamespace(shape=projection.weight.shape)  # type: ignore[attr-defined]
    assert math.prod(projection.weight.shape) == 2048
    projection.weight = stored
    projection.forward = lambda x: torch.zeros(*x.shape[:-1], 32)  # type: ignore[method-assign]
    quantised = LoadedLM(tiny_model, packed, policy.tokenizer, "policy.folder")
    assert quantised.trunk_parameters == policy.trunk_parameters
    assert quantised.flops(3, 7, 1) == policy.flops(3, 7, 1)


# what a forward gives


@torch.inference_mode()
def test_prompts_of_different_lengths_are_encoded_together_as_alone(policy: LoadedLM) -> None:
    """Left-padded: states and logits of the last tokens are those of each prompt by itself."""
    prompts = [[5, 6, 7, 8, 9], [10, 11]]
    cache, out = policy.prefill(prompts, [2, 0])
    assert (out.last.shape, out.reached, len(out.states)) == ((2, 1, 32), 3, 2)
    assert cache.starts.tolist()[:2] == [0, 3]
    for row, prompt in enumerate(prompts):
        alone = policy.model(input_ids=torch.tensor([prompt]), output_hidden_states=True, use_cache=False)
        for found, expected in (
            (policy.logits(out.last)[row, 0], alone.logits[0, -1]),
            (out.states[0][row, 0], alone.hidden_states[2][0, -1]),
            (out.states[1][row, 0], alone.hidden_states[0][0, -1]),
        ):
            assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_one_token_of_each_row() -> None:
    """Of 2 rows with 3 tokens each: token 2 of row 1, then token 0 of row 0."""
    last = torch.arange(6.0).view(2, 3, 1)
    out = Forward(last, (last + 10,), 2).at(torch.tensor([1, 0]), torch.tensor([2, 0]))
    assert (out.last.tolist(), out.states[0].tolist(), out.reached) == ([[5.0], [0.0]], [[15.0], [10.0]], 2)


def test_layers_run_as_far_as_what_is_read(policy: LoadedLM) -> None:
    """The embeddings, state 0, come with the first layer; where nothing is read all layers run."""
    assert [policy.lowest(taps) for taps in ((), (0,), (1,), (2,), (2, 1), (3,))] == [3, 1, 1, 2, 2, 3]


def test_logits_of_another_vocabulary_are_cut_or_filled_with_what_is_never_drawn(policy: LoadedLM) -> None:
    size = policy.vocabulary
    assert policy.fit(torch.ones(2, size + 3)).shape == (2, size)
    filled = policy.fit(torch.ones(2, size - 2, dtype=torch.bfloat16))
    assert filled.dtype == torch.float32
    assert filled[0, -4:].tolist() == [1, 1, -math.inf, -math.inf]


# what it costs


def test_flops_by_hand(policy: LoadedLM) -> None:
    """Three layers of n weights each, a norm of 32, 4 heads of size 8, V logits of 32 weights each.

    5 tokens that see 20 positions, all layers, two with logits: 2·(3n + 32)·5 + 4·32·3·20 + 2·32·V·2.
    """
    n = sum(p.numel() for p in policy.sections.layers[0].parameters())
    matrix = 32 * policy.vocabulary
    assert parameters(policy.sections.layers[0]) == n
    assert policy.trunk_parameters == 3 * n + 32
    assert policy.flops(5, 20, 2) == 2 * (3 * n + 32) * 5 + 4 * 32 * 3 * 20 + 2 * matrix * 2
    assert policy.flops(5, 20, 0, end=1) == 2 * n * 5 + 4 * 32 * 20  # the norm comes with the last layer
    assert policy.flops(5, 20, 0, first=1) == 2 * (2 * n + 32) * 5 + 4 * 32 * 2 * 20
    branch = Branch(1, policy.sections)
    own, with_branch = (policy.flops(5, 20, 0, taps, end=2) for taps in ((2,), (2, Tap(branch, 3))))
    assert with_branch - own == 2 * 2 * n * 5 + 4 * 32 * 2 * 20  # layers 1 and 2 of the branch
