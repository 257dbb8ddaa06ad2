"""The engine's identities, each said in its test, against brute force over the vocabulary and dynamic programming."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.decode.guides.scalar_value import ScalarValue
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.learn.values.scalar_head import ValueHead

Prompts = list[tuple[str, list[int]]]


OUTSIDE = ("mean", "prefix", "drop")


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


@contextmanager
def eos_is(policy: LoadedLM, token: int) -> Iterator[None]:
    """The random model rarely draws its own EOS; another token stands in for it."""
    before, policy.eos = policy.eos, token
    try:
        yield
    finally:
        policy.eos = before


def common_token(decode) -> int:
    """The token that the base draws most often."""
    return int(np.bincount(np.concatenate(tokens(decode(samples=6)))).argmax())


def divergence(pi: np.ndarray, p: np.ndarray) -> float:
    live = pi > 0
    return float((pi[live] * np.log(pi[live] / p[live])).sum())


# identities


@pytest.mark.parametrize("outside", ["mean", "prefix"])
def test_beta_zero_draws_the_base_tokens(decode, head: Path, outside: str) -> None:
    guided = decode(ScalarValue(head, beta=0.0, k=8, outside=outside), samples=4)
    assert tokens(guided) == tokens(decode(samples=4))
    assert max(abs(row.kl) for row in guided) < 1e-9


def test_one_candidate_draws_the_base_tokens(decode, head: Path) -> None:
    assert tokens(decode(ScalarValue(head, beta=50.0, k=1))) == tokens(decode())


@pytest.mark.parametrize("outside", OUTSIDE)
def test_a_constant_added_to_the_value_changes_nothing(decode, make_head, outside: str) -> None:
    one = decode(ScalarValue(make_head(), beta=2.0, k=8, outside=outside))
    other = decode(ScalarValue(make_head(shift=5.0), beta=2.0, k=8, outside=outside))
    assert tokens(one) == tokens(other)
    assert [row.kl for row in one] == pytest.approx([row.kl for row in other], abs=1e-4)


@pytest.mark.parametrize("guided", [False, True])
def test_results_do_not_depend_on_the_rows_that_step_together(
    decode, head: Path, policy: LoadedLM, guided: bool
) -> None:
    """Rows leave by EOS at different steps and new ones enter, at every size of the batch."""
    guide = ScalarValue(head, beta=2.0, k=6) if guided else None
    with eos_is(policy, common_token(decode)):
        runs = [decode(guide, samples=6, rows=rows, max_new_tokens=9) for rows in (1, 3, 5, 64)]
    assert {row.finished for row in runs[0]} == {True, False}
    for run in runs[1:]:
        assert tokens(run) == tokens(runs[0])
        assert [row.kl for row in run] == pytest.approx([row.kl for row in runs[0]], abs=1e-4)
        assert [row.logprob for row in run] == pytest.approx([row.logprob for row in runs[0]], abs=1e-3)
        assert [row.tokens for row in run] == [row.tokens for row in runs[0]]
        assert [row.flops for row in run] == [row.flops for row in runs[0]]


def test_batched_equals_one_at_a_time_past_every_window(
    any_policy: LoadedLM, prompts: list[tuple[str, list[int]]]
) -> None:
    runs = [Engine(Lanes(any_policy), Draw(Sampling(max_new_tokens=9), 0, rows)).run(prompts, 2) for rows in (1, 4, 64)]
    assert (
        [row.token_ids for row in runs[0]] == [row.token_ids for row in runs[1]] == [row.token_ids for row in runs[2]]
    )


def test_results_do_not_depend_on_the_order_of_prompts(decode, prompts: Prompts, head: Path) -> None:
    guide = ScalarValue(head, beta=2.0, k=6)
    forward, backward = decode(guide), decode(guide, only=prompts[::-1])
    pairs = {(prompts[::-1][row.prompt][0], row.sample): row.token_ids for row in backward}
    assert {(prompts[row.prompt][0], row.sample): row.token_ids for row in forward} == pairs


def test_more_samples_begin_with_the_same_ones(decode) -> None:
    few, many = decode(samples=2), decode(samples=5)
    assert tokens(few) == [row.token_ids for row in many if row.sample < 2]


def test_another_seed_draws_other_tokens(decode) -> None:
    assert tokens(decode(seed=0)) != tokens(decode(seed=1))


# against brute force


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 12}, {"temperature": 1.5, "top_k": 5}])
@pytest.mark.parametrize("outside", OUTSIDE)
@torch.inference_mode()
def test_log_probabilities_and_kl_equal_fresh_sums_over_the_vocabulary(
    oracle_step: Any, decode, policy: LoadedLM, prompts: Prompts, head: Path, outside: str, options: dict[str, float]
) -> None:
    """k = 8 with top_k = 5: some candidates have no support, and nothing lies outside."""
    guide = ScalarValue(head, beta=1.5, k=8, outside=outside)
    sampling = Sampling(**options)  # type: ignore[arg-type]
    loaded = ValueHead.load(head)
    for row in decode(guide, samples=1, max_new_tokens=4, **options):
        prefix, logprob, base_logprob, kl = list(prompts[row.prompt][1]), 0.0, 0.0, 0.0
        for token in row.token_ids:
            p, pi = oracle_step(policy, loaded, prefix, guide, sampling)
            logprob, base_logprob, kl = (
                logprob + np.log(pi[token]),
                base_logprob + np.log(p[token]),
                kl + divergence(pi, p),
            )
            prefix.append(token)
        assert row.logprob == pytest.approx(logprob, abs=1e-4)
        assert row.base_logprob == pytest.approx(base_logprob, abs=1e-4)
        assert row.kl == pytest.approx(kl, abs=1e-4)


@pytest.mark.parametrize("outside", ["mean", "drop"])
@torch.inference_mode()
def test_agreement_with_dynamic_programming(
    oracle_step: Any, decode, policy: LoadedLM, prompts: Prompts, head: Path, outside: str
) -> None:
    """T = 3 and six tokens a step: all 6 + 36 prefixes are summed, KL(s) = KLₜ(s) + Σ π(a|s)·KL(s⊕a).

    Of 1,200 draws the mean of summed exact KL, the mean log-ratio and the first token's frequencies agree with it.
    """
    guide, sampling = ScalarValue(head, beta=1.5, k=4, outside=outside), Sampling(top_k=6, max_new_tokens=3)
    loaded = ValueHead.load(head)

    def value(prefix: list[int], steps: int) -> float:
        if steps == 0:
            return 0.0
        p, pi = oracle_step(policy, loaded, prefix, guide, sampling)
        return divergence(pi, p) + sum(pi[a] * value([*prefix, int(a)], steps - 1) for a in np.flatnonzero(pi))

    exact = value(prompts[0][1], 3)
    rows = decode(guide, samples=1200, rows=256, only=prompts[:1], top_k=6, max_new_tokens=3)
    kl = np.array([row.kl for row in rows])
    ratio = np.array([row.logprob - row.base_logprob for row in rows])
    assert exact > 0.05
    assert abs(kl.mean() - exact) < 4 * kl.std() / math.sqrt(len(kl)) + 1e-5
    assert abs(ratio.mean() - exact) < 4 * ratio.std() / math.sqrt(len(kl))
    assert kl.std() < ratio.std()
    _, pi = oracle_step(policy, loaded, prompts[0][1], guide, sampling)
    share = np.bincount([row.token_ids[0] for row in rows], minlength=len(pi)) / len(rows)
    assert (np.abs(share - pi) <= 4 * np.sqrt(pi * (1 - pi) / len(rows))).all()


def test_tokens_from_outside_the_candidates_are_drawn_and_go_on_correctly(
    oracle_step: Any, decode, policy: LoadedLM, prompts: Prompts, head: Path
) -> None:
    """k = 2 of about 390 tokens: many draws lie outside, and still the next step's base log-probability is right."""
    rows = decode(ScalarValue(head, beta=1.0, k=2), samples=3)
    outside = 0
    for row in rows:
        prefix, total = list(prompts[row.prompt][1]), 0.0
        for token in row.token_ids:
            p, _ = oracle_step(policy, None, prefix, None, Sampling())
            outside += int(token not in np.argsort(-p)[:2])
            total += math.log(p[token])
            prefix.append(token)
        assert row.base_logprob == pytest.approx(total, abs=1e-4)
    assert outside >= 5


@torch.inference_mode()
def test_greedy_takes_the_maximum(oracle_step: Any, decode, policy: LoadedLM, prompts: Prompts, head: Path) -> None:
    base, guide = decode(samples=1, greedy=True), ScalarValue(head, beta=3.0, k=8)
    guided = decode(guide, samples=1, greedy=True)
    for index, (_, ids) in enumerate(prompts):
        plain, tilted = list(ids), list(ids)
        for _ in range(6):
            plain.append(int(oracle_step(policy, None, plain, None, Sampling())[0].argmax()))
            tilted.append(int(oracle_step(policy, ValueHead.load(head), tilted, guide, Sampling())[1].argmax()))
        assert base[index].token_ids == plain[len(ids) :]
        assert guided[index].token_ids == tilted[len(ids) :]
    assert tokens(base) != tokens(guided)


# endings, counts, refusals


def test_eos_ends_a_row_and_counts_as_its_last_token(decode, policy: LoadedLM) -> None:
    common = common_token(decode)
    with eos_is(policy, common):
        rows = decode(samples=6)
    assert {row.finished for row in rows} == {True, False}
    for row in rows:
        assert row.finished == (row.token_ids[-1] == common)
        assert common not in row.token_ids[:-1]
        assert row.finished or len(row.token_ids) == 6


def test_eos_can_be_made_a_candidate(decode, policy: LoadedLM, prompts: Prompts, head: Path) -> None:
    sampling = Sampling()
    for force in (False, True):
        lanes = Lanes(policy)
        terms = ScalarValue(head, k=3, force_eos_candidate=force).open(lanes, sampling)
        engine = Engine(lanes, Draw(sampling, 0, 8), terms)
        seen: list[bool] = []
        original = engine.steering.propose

        def propose(uniforms, betas, original=original, seen=seen):  # type: ignore[no-untyped-def]
            proposal = original(uniforms, betas)
            seen.extend((proposal.ids[:, :3] == policy.eos).any(1).tolist())
            return proposal

        engine.steering.propose = propose  # type: ignore[method-assign]
        engine.run(prompts, 1)
        assert all(seen) == force


def test_tokens_and_flops_are_counted(decode, policy: LoadedLM, prompts: Prompts, head: Path) -> None:
    """Base: prompt + 5 of the 6 tokens (the last needs no forward). VAS, k = 4: prompt + 6·(4 + 1)."""
    length = len(prompts[1][1])
    first, second = decode(only=prompts[1:2])
    assert (first.tokens, second.tokens) == (length + 5, 5)
    trunk, head_matrix = policy.trunk_parameters, 32 * policy.vocabulary
    embedding = policy.model.get_input_embeddings().weight.numel()
    assert trunk == sum(p.numel() for p in policy.model.parameters()) - embedding  # the head is tied
    attended = sum(range(1, length + 1)) + sum(length + t for t in range(1, 6))
    expected = 2 * trunk * (length + 5) + 4 * 3 * 32 * attended + 2 * head_matrix * 6
    assert first.flops == expected
    guided = decode(ScalarValue(head, k=4), only=prompts[1:2])
    assert [row.tokens for row in guided] == [length + 6 * 5, 6 * 5]


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_a_prompt_is_encoded_once(policy: LoadedLM, prompts: Prompts, rows: int) -> None:
    encoded: list[int] = []
    lanes = Lanes(policy)
    original = lanes.policy.prefill

    def prefill(wanted):  # type: ignore[no-untyped-def]
        encoded.extend(wanted)
        return original(wanted)

    lanes.policy.prefill = prefill  # type: ignore[method-assign]
    Engine(lanes, Draw(Sampling(max_new_tokens=3), 0, rows)).run(prompts, 5)
    assert encoded == [0, 1, 2, 3, 4]


def test_logits_that_are_not_finite_name_model_prompt_and_step(tiny_model: Path, prompts: Prompts) -> None:
    policy = CausalLM(tiny_model).load("cpu")
    original, calls = policy.logits, iter([False, False, True])
    policy.logits = lambda last: original(last) * (math.nan if next(calls) else 1)  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match=r"logits are not finite at step 2 of prompt 'p0', sample 0.*tiny"):
        Engine(Lanes(policy), Draw(Sampling(), 0, 8)).run(prompts, 1)


def test_values_that_are_not_finite_name_the_value_model(
    decode, policy: LoadedLM, prompts: Prompts, head: Path
) -> None:
    lanes = Lanes(policy)
    terms = ScalarValue(head).open(lanes, Sampling())
    terms.scalar[0].head.last.bias.fill_(math.nan)  # type: ignore[attr-defined]
    with pytest.raises(FloatingPointError, match=r"values of .*head.* are not finite at step 0 of prompt 'p0'"):
        Engine(lanes, Draw(Sampling(), 0, 8), terms).run(prompts, 1)


def test_progress_ends_at_the_total(policy: LoadedLM, prompts: Prompts) -> None:
    told: list[tuple[int, int]] = []
    draw = Draw(Sampling(), 0, 8, lambda done, total, note: told.append((done, total)))
    Engine(Lanes(policy), draw).run(prompts, 2)
    assert told[-1] == (10, 10)
