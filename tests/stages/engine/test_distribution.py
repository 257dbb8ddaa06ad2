"""Temperature, truncation and the inverse CDF."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.engine.distribution import Distribution, NotFinite, block_sums, inverse_cdf
from stages.engine.sampling import Sampling

LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def kept(**options: float) -> list[float]:
    base = Distribution.of(LOGITS, Sampling(**options))  # type: ignore[arg-type]
    return base.logprob(torch.arange(4)[None]).exp()[0].tolist()


def test_inverse_cdf_by_hand() -> None:
    # weights .2 0 .5 .3: borders at .2, .2, .7, 1
    weights = torch.tensor([[0.2, 0.0, 0.5, 0.3]] * 4)
    u = torch.tensor([0.19, 0.201, 0.71, 0.999999], dtype=torch.float64)
    assert inverse_cdf(weights, block_sums(weights), u).tolist() == [0, 2, 3, 3]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1e-30, 0.1, 1.0, 7.0]), min_size=2, max_size=9).filter(any),
    st.integers(0, 700),
    st.sampled_from([0.0, 1e-300, 0.3, 1 - 2**-53]),
)
def test_what_has_no_weight_is_never_drawn(few: list[float], at: int, u: float) -> None:
    """A few weights somewhere in a vocabulary of three blocks, the last of them not full."""
    weights = torch.zeros(1, 720)
    weights[0, at : at + len(few)] = torch.tensor(few)
    assert weights[0, int(inverse_cdf(weights, block_sums(weights), torch.tensor([u], dtype=torch.float64)))] > 0


def test_the_draw_by_blocks_is_the_inverse_of_one_running_sum() -> None:
    weights = torch.rand(1, 1000, generator=torch.Generator().manual_seed(0)).expand(500, -1).contiguous()
    u = torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    running = weights[0].double().cumsum(0)
    expected = torch.searchsorted(running, u * running[-1], right=True)
    assert torch.equal(inverse_cdf(weights, block_sums(weights), u), expected)


def test_logprob_is_the_log_softmax_at_the_temperature() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 5
    base = Distribution.of(logits, Sampling(temperature=0.7))
    ids = torch.arange(50).expand(3, -1)
    assert torch.allclose(base.logprob(ids), torch.log_softmax(logits.double() / 0.7, 1), atol=1e-5)


def test_truncation_by_hand() -> None:
    assert kept(top_k=2) == pytest.approx([0.625, 0.375, 0, 0])  # .5/.8, .3/.8
    assert kept(top_p=0.8) == pytest.approx([0.625, 0.375, 0, 0])  # .5 + .3 reaches .8
    assert kept(top_p=0.81) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    assert kept(top_p=0.01) == pytest.approx([1, 0, 0, 0])  # the first always stays
    assert kept(min_p=0.31) == pytest.approx([0.625, 0.375, 0, 0])  # .15 < .31·.5
    assert kept(top_k=3, top_p=0.6) == pytest.approx([0.625, 0.375, 0, 0])  # .6 of the .95 that top-k left is .57
    assert kept() == pytest.approx([0.5, 0.3, 0.15, 0.05])


def test_temperature_comes_before_truncation() -> None:
    # at temperature 2 the weights are √p: .707 .548 .387 .224, in all 1.866; .7 of it = 1.306 > .707 + .548
    assert kept(temperature=2, top_p=0.7)[2] > 0
    assert kept(temperature=1, top_p=0.7)[2] == 0


def test_the_nucleus_may_be_larger_than_the_first_look() -> None:
    """A flat distribution over 5,000 tokens: nine tenths of them are in the nucleus."""
    base = Distribution.of(torch.linspace(0, 1e-3, 5000)[None], Sampling(top_p=0.9))
    assert int((base.weights > 0).sum()) == pytest.approx(4500, abs=3)


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 0.999, 1 - 2e-16])
def test_the_nucleus_is_that_of_a_full_sort(top_p: float) -> None:
    """Peaked, middling and flat rows together: each its own nucleus, whatever the others need."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3000, generator=generator) * torch.tensor([8.0, 3.0, 1.0, 0.0]).repeat(3)[:, None]
    weights = Distribution.of(logits, Sampling(top_p=top_p)).weights
    for row in Distribution.of(logits, Sampling()).weights.double():
        ordered = row.sort(descending=True).values
        count = int((ordered.cumsum(0) < top_p * row.sum()).sum()) + 1
        expected = row.where(row >= ordered[min(count, len(row)) - 1], 0.0)
        assert torch.equal(weights[0].double(), expected)
        weights = weights[1:]


@pytest.mark.parametrize("truncation", [{}, {"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.1}])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_is_refused(bad: float, truncation: dict[str, Any]) -> None:
    logits = torch.zeros(3, 5)
    logits[1, 2] = bad
    with pytest.raises(NotFinite) as error:
        Distribution.of(logits, Sampling(**truncation))
    assert error.value.row == 1


def test_a_logit_of_minus_infinity_is_a_token_never_drawn() -> None:
    base = Distribution.of(torch.tensor([[0.0, -math.inf, 0.0]]), Sampling())
    assert base.logprob(torch.tensor([[0, 1, 2]])).exp().tolist() == [[0.5, 0.0, 0.5]]
