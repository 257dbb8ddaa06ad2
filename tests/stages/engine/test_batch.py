"""Rows that step together: each draws what it would draw alone, whatever the others do and whenever it came."""

import math
from pathlib import Path

import pytest
import torch

from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.guides.vocab_value import VocabValue
from stages.engine.batch import Batch
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling

Prompts = list[tuple[str, list[int]]]
SAMPLING = Sampling(max_new_tokens=8)


def same(one: Response, other: Response) -> None:
    assert one.token_ids == other.token_ids
    assert one.kl == pytest.approx(other.kl, abs=1e-5)
    assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    assert (one.tokens, one.flops) == (other.tokens, pytest.approx(other.flops))


def alone(policy: LoadedLM, guide: object, prompt: tuple[str, list[int]], sample: int = 0) -> Response:
    lanes = Lanes(policy)
    terms = guide.open(lanes, SAMPLING)  # type: ignore[attr-defined]
    return Engine(lanes, Draw(SAMPLING, 0, 1), terms).run([prompt], sample + 1)[sample]


# strengths


def test_two_strengths_in_one_batch_are_each_as_alone(policy: LoadedLM, prompts: Prompts, head: Path) -> None:
    """β = 1 and 6 for two prompts, in one batch."""
    lanes = Lanes(policy)
    terms = ScalarValue(head, beta=2.0, k=6).open(lanes, SAMPLING)
    both = Engine(lanes, Draw(SAMPLING, 0, 2), terms).run(prompts[:2], 1, betas=[(1.0,), (6.0,)])
    for found, beta, prompt in zip(both, (1.0, 6.0), prompts, strict=False):
        same(found, alone(policy, ScalarValue(head, beta=beta, k=6), prompt))
    assert both[1].kl > both[0].kl


def test_strengths_of_several_terms_stand_in_the_order_of_the_terms(
    policy: LoadedLM, prompts: Prompts, make_head, vocab_head: Path, tuned_model: Path
) -> None:
    """Dense terms first: the tuned model's weight, Q's β, then one β for each reward of the scalar head."""
    two = make_head(rewards=("proxy", "length"))

    def guide(weight: float, wide: float, proxy: float, length: float) -> Sum:
        scalar = ScalarValue(two, beta=[proxy, length], k=5)
        return Sum([scalar, ImplicitValue(CausalLM(tuned_model), weight=weight), VocabValue(vocab_head, beta=wide)])

    lanes = Lanes(policy)
    engine = Engine(lanes, Draw(SAMPLING, 0, 4), guide(1.0, 1.0, 1.0, 1.0).open(lanes, SAMPLING))
    strengths = [(0.0, 0.0, 0.0, 0.0), (0.5, 0.0, 0.0, 2.0), (0.0, 1.0, 3.0, -1.0), (1.0, 0.5, 1.0, 1.0)]
    assert engine.steering.betas == (1.0, 1.0, 1.0, 1.0)
    found = engine.run(prompts[:4], 1, betas=strengths)
    for row, betas, prompt in zip(found, strengths, prompts, strict=False):
        same(row, alone(policy, guide(*betas), prompt))
    assert found[0].kl == pytest.approx(0.0, abs=1e-9)


# coming and going


def opened(policy: LoadedLM, guide: object, capacity: int) -> tuple[Lanes, Batch[Response]]:
    lanes = Lanes(policy)
    terms = guide.open(lanes, SAMPLING)  # type: ignore[attr-defined]
    return lanes, Engine(lanes, Draw(SAMPLING, 0, capacity), terms).open(capacity)


@pytest.mark.parametrize("kind", ["trunk", "apart", "implicit"])
@torch.inference_mode()
def test_a_late_row_with_a_longer_prompt_draws_as_alone(
    policy: LoadedLM, prompts: Prompts, head: Path, tuned_model: Path, make_head, kind: str
) -> None:
    """The first rows have drawn three tokens when a prompt comes that nobody knew of, longer than all before: the
    caches grow. It has its own strength, and the others go on as if nothing had happened."""
    from stages.learn.values.scalar_head import fingerprint

    other = make_head(layer=1, trunk=fingerprint(tuned_model))
    make = {
        "trunk": lambda beta: ScalarValue(head, beta=beta, k=5),
        "apart": lambda beta: ScalarValue(other, beta=beta, k=5, model=CausalLM(tuned_model)),
        "implicit": lambda beta: ImplicitValue(CausalLM(tuned_model), weight=beta),
    }[kind]
    short, late = [prompts[0], prompts[2]], ("late", [*prompts[3][1], *prompts[1][1], *prompts[3][1]])
    lanes, batch = opened(policy, make(2.0), 3)
    first = lanes.add(short, None, SAMPLING.max_new_tokens)
    rows = [Response(prompt, 0) for prompt in first]
    batch.enter(rows)
    for _ in range(3):
        assert batch.step() == []
    (index,) = lanes.add([late], None, SAMPLING.max_new_tokens)
    rows.append(Response(index, 0, betas=(0.5,)))
    batch.enter(rows[2:])
    while batch.rows:
        batch.step()
    for row, prompt, beta in zip(rows, [*short, late], (2.0, 2.0, 0.5), strict=True):
        same(row, alone(policy, make(beta), prompt))


@torch.inference_mode()
def test_rows_of_one_prompt_may_come_in_any_order(policy: LoadedLM, prompts: Prompts, head: Path) -> None:
    guide = ScalarValue(head, beta=2.0, k=5)
    lanes, batch = opened(policy, guide, 4)
    lanes.add(prompts[:2], None, SAMPLING.max_new_tokens)
    rows = [Response(0, 0), Response(1, 0), Response(0, 1), Response(1, 1)]
    batch.enter(rows)
    while batch.rows:
        batch.step()
    for row in rows:
        same(row, alone(policy, guide, prompts[row.prompt], row.sample))


def test_a_batch_that_is_full_takes_no_more(policy: LoadedLM, prompts: Prompts, head: Path) -> None:
    lanes, batch = opened(policy, ScalarValue(head, k=2), 1)
    lanes.add(prompts[:2], None, 8)
    with torch.inference_mode():
        batch.enter([Response(0, 0)])
        with pytest.raises(ValueError, match="1 rows and 1 new ones, but places for 1"):
            batch.enter([Response(1, 0)])


# what is kept of every token


@pytest.mark.parametrize("outside", ["mean", "drop"])
def test_kept_columns_are_each_tokens_own(policy: LoadedLM, prompts: Prompts, head: Path, outside: str) -> None:
    """One number a token. Log-ratios sum to log π − log π₀, and log π/π₀ = t − log Z, with one Z for all tokens of a
    step."""
    lanes = Lanes(policy)
    terms = ScalarValue(head, beta=2.0, k=4, outside=outside).open(lanes, SAMPLING)
    draw = Draw(SAMPLING, 0, 8, keep=("tilt", "log_ratio"))
    rows = Engine(lanes, draw, terms).run(prompts, 6)
    tilts = []
    for row in rows:
        assert len(row.kept["tilt"]) == len(row.kept["log_ratio"]) == len(row.token_ids)
        assert sum(row.kept["log_ratio"]) == pytest.approx(row.logprob - row.base_logprob, abs=1e-6)
        tilts += row.kept["tilt"]
    first = {(row.prompt, round(row.kept["tilt"][0] - row.kept["log_ratio"][0], 6)) for row in rows}
    assert len(first) == len(prompts)  # one log Z for the first step of each prompt
    assert (0.0 in tilts) == (outside == "mean")  # tokens from outside the candidates have none
    assert any(tilts)


def test_nothing_is_kept_unasked_and_only_known_columns_can_be(policy: LoadedLM, prompts: Prompts) -> None:
    (row,) = Engine(Lanes(policy), Draw(SAMPLING)).run(prompts[:1], 1)
    assert row.kept == {}
    with pytest.raises(ValueError, match="'entropy' is not one of tilt, log_ratio"):
        Draw(SAMPLING, keep=("entropy",))


def test_a_dense_tilt_is_kept_too(policy: LoadedLM, prompts: Prompts, tuned_model: Path) -> None:
    """One step by hand: t = w·(z_tuned − z_base) of the drawn token."""
    sampling, weight = Sampling(max_new_tokens=1), 0.7
    lanes = Lanes(policy)
    terms = ImplicitValue(CausalLM(tuned_model), weight=weight).open(lanes, sampling)
    (row,) = Engine(lanes, Draw(sampling, keep=("tilt",)), terms).run(prompts[:1], 1)
    ids, tuned = torch.tensor([prompts[0][1]]), CausalLM(tuned_model).load("cpu")
    base, other = (lm.model(input_ids=ids).logits[0, -1, row.token_ids[0]].item() for lm in (policy, tuned))
    assert row.kept["tilt"] == [pytest.approx(weight * (other - base), abs=1e-4)]
    assert math.isfinite(row.kl)
