"""The arithmetic of tilting: METHODS' exact numbers, brute force over the vocabulary, and the draw."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.engine.tilt import OUTSIDE, Tilted, likeliest, pick, place_in_base, tilted, value_tilt

NONE = -math.inf


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def steer(p: Tensor, candidates: list[int], values: Tensor, beta: float, outside: str, prefix: float = 0.0) -> Tilted:
    """One row: base probabilities p (V,), candidate ids, their values (C,)."""
    chosen = p[candidates]
    share = p.sum() - chosen.sum() if len(candidates) < len(p) else torch.zeros(())
    log_outside = f64(NONE) if outside == "drop" else share.clamp(min=0).log().reshape(1)
    tilt = value_tilt(values[None], (chosen > 0)[None], f64(beta), outside, f64(prefix))
    return tilted(chosen.log()[None], tilt, log_outside)


@pytest.mark.parametrize(("beta", "p_left"), [(1, 0.512497), (5, 0.562177), (10, 0.622459)])
@pytest.mark.parametrize("outside", OUTSIDE)
def test_tree_mdp(beta: float, p_left: float, outside: str) -> None:
    """Q♯ fig. 4: p(L) = p(R) = ½, V(L) = .1, V(R) = .05·1. P(L) = e^{.1β} / (e^{.1β} + e^{.05β})."""
    policy = steer(f64(0.5, 0.5), [0, 1], f64(0.1, 0.05), beta, outside, prefix=0.075)
    assert policy.logprob[0, 0].exp().item() == pytest.approx(p_left, abs=5e-7)


def test_worked_example() -> None:
    # π₀ = (.5, .3 | .2), t = (log 2, −log 2): Z = 1 + .15 + .2 = 1.35
    tilt = f64(math.log(2), -math.log(2))[None]
    policy = tilted(f64(0.5, 0.3).log()[None], tilt, f64(0.2).log())
    assert policy.logprob.exp()[0].tolist() == pytest.approx([1 / 1.35, 0.15 / 1.35])
    assert policy.log_outside.exp().item() == pytest.approx(0.2 / 1.35)
    assert policy.kl.item() == pytest.approx((1 / 1.35 - 0.15 / 1.35) * math.log(2) - math.log(1.35))
    dropped = tilted(f64(0.5, 0.3).log()[None], tilt, f64(NONE))
    assert dropped.logprob.exp()[0].tolist() == pytest.approx([1 / 1.15, 0.15 / 1.15])
    assert dropped.kl.item() == pytest.approx(0.3726, abs=5e-5)


def test_mean_is_over_candidates_that_the_base_can_draw() -> None:
    tilt = value_tilt(f64(1, 0, 100)[None], torch.tensor([[True, True, False]]), f64(2.0), "mean")
    assert tilt[0, :2].tolist() == [1, -1]  # c = ½, not 33.7


distributions = st.lists(st.floats(0.001, 1), min_size=4, max_size=8)


@settings(max_examples=60, deadline=None)
@given(distributions, st.data(), st.floats(-8, 8), st.sampled_from(OUTSIDE))
def test_policy_and_kl_equal_brute_force_over_the_vocabulary(
    raw: list[float], data: st.DataObject, beta: float, outside: str
) -> None:
    """With truncation too: the last one or two tokens have no base probability, and may be candidates."""
    truncated = data.draw(st.integers(0, 2))
    p = f64(*raw)
    p[len(raw) - truncated :] = 0
    p = p / p.sum()
    order = data.draw(st.permutations(range(len(raw))))
    candidates = [0, *(i for i in order if i != 0)][: data.draw(st.integers(1, len(raw)))]
    values = f64(*data.draw(st.lists(st.floats(-3, 3), min_size=len(candidates), max_size=len(candidates))))
    policy = steer(p, candidates, values, beta, outside, prefix=0.4)

    live = [value.item() for value, i in zip(values, candidates, strict=True) if p[i] > 0]
    centre = 0.4 if outside == "prefix" else sum(live) / len(live)
    weight = p.clone() if outside != "drop" else torch.zeros_like(p)
    for value, i in zip(values, candidates, strict=True):
        weight[i] = p[i] * math.exp(beta * (value.item() - centre))
    pi = weight / weight.sum()
    kl = sum(a.item() * math.log(a.item() / b.item()) for a, b in zip(pi, p, strict=True) if a > 0)
    assert torch.allclose(policy.logprob.exp()[0], pi[candidates], atol=1e-9)
    assert policy.kl.item() == pytest.approx(kl, abs=1e-8)
    rest = pi.sum() - pi[candidates].sum()
    assert policy.log_outside.exp().item() == pytest.approx(rest.item(), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 50), st.sampled_from(OUTSIDE))
def test_a_constant_added_to_the_value_changes_nothing(constant: float, outside: str) -> None:
    p, values = f64(0.4, 0.3, 0.2, 0.1), f64(1, -1, 0.5)
    one = steer(p, [0, 1, 2], values, 3.0, outside, prefix=0.2)
    other = steer(p, [0, 1, 2], values + constant, 3.0, outside, prefix=0.2 + constant)  # `prefix`: V(s) moves too
    assert torch.allclose(one.logprob, other.logprob, atol=1e-9)


@pytest.mark.parametrize("outside", ["mean", "prefix"])
def test_beta_zero_is_the_base(outside: str) -> None:
    policy = steer(f64(0.4, 0.3, 0.2, 0.1), [0, 1], f64(5, -5), 0.0, outside)
    assert policy.logprob.exp()[0].tolist() == pytest.approx([0.4, 0.3])
    assert policy.kl.item() == pytest.approx(0, abs=1e-12)


def test_one_candidate_is_the_base_for_mean() -> None:
    policy = steer(f64(0.4, 0.6), [1], f64(7), 100.0, "mean")
    assert policy.logprob.exp().item() == pytest.approx(0.6)
    assert policy.kl.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("outside", OUTSIDE)
def test_a_huge_strength_stays_finite(outside: str) -> None:
    """β = 10⁵: all mass on the best candidate, KL = −log π₀(it) = −log .3."""
    policy = steer(f64(0.4, 0.3, 0.2, 0.1), [0, 1, 2], f64(0, 1, -1), 1e5, outside)
    assert policy.logprob.exp()[0].tolist() == pytest.approx([0, 1, 0])
    assert policy.kl.item() == pytest.approx(-math.log(0.3))


def grid(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.05, 0.3, 1.0]), min_size=2, max_size=6).filter(any), st.booleans())
def test_pick_draws_each_candidate_as_often_as_its_probability(raw: list[float], dropped: bool) -> None:
    p = f64(*raw) / (sum(raw) + (0 if dropped else 0.5))
    policy = tilted(p.log()[None], torch.zeros(1, len(raw), dtype=torch.float64), f64(1 - float(p.sum())).log())
    if dropped:
        policy = tilted(p.log()[None], torch.zeros(1, len(raw), dtype=torch.float64), f64(NONE))
    n = 2000
    many = Tilted(*(field.expand(n, *field.shape[1:]) for field in policy))
    counts = torch.bincount(pick(many, grid(n)), minlength=len(raw) + 1).double()
    assert torch.allclose(counts[:-1] / n, p / (p.sum() if dropped else 1), atol=2 / n)
    assert (counts[-1] == 0) == dropped


def test_likeliest_compares_with_what_lies_outside() -> None:
    # the tilt halves the candidate: .5·e^{−log 4} = .125 against .3 outside
    policy = tilted(f64(0.5).log()[None], f64(-math.log(4))[None], f64(0.5).log())
    assert likeliest(policy, f64(0.3).log()).item() == 1
    assert likeliest(policy, f64(0.1).log()).item() == 0


def test_the_base_draw_placed_among_candidates_is_uniform_and_returns_itself_untilted() -> None:
    """V = 5, candidates (3, 0); base draw by a grid over u, place by a grid over v: 250 × 40 rows."""
    p, candidates = f64(0.1, 0.15, 0.2, 0.25, 0.3), [3, 0]
    u, v = grid(250).repeat_interleave(40), grid(40).repeat(250)
    drawn = torch.searchsorted(p.cumsum(0), u, right=True)
    n = len(u)
    ids = torch.tensor([candidates]).expand(n, -1)
    chosen = p[candidates].expand(n, -1)
    outside = (1 - chosen.sum(1)).clamp(min=0)
    placed = place_in_base(drawn, ids, chosen, outside, v)
    # uniform: the sorted values follow the diagonal
    assert (placed.sort().values - grid(n)).abs().max() < 0.02
    untilted = tilted(chosen.log(), torch.zeros_like(chosen), outside.log())
    index = pick(untilted, placed)
    expected = torch.where(drawn == 3, 0, torch.where(drawn == 0, 1, 2))
    assert torch.equal(index, expected)
    # given "outside", the place does not depend on which token it was: the same grid for tokens 1, 2 and 4
    places = [placed[drawn == token].sort().values for token in (1, 2, 4)]
    assert all(place.min() == places[0].min() and place.max() == places[0].max() for place in places)
