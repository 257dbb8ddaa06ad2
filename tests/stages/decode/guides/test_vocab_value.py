"""A value of every token at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.guides.vocab_value import VocabValue
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Sampling
from stages.errors import BadInput

Prompts = list[tuple[str, list[int]]]
Decoder = Callable[..., list[Response]]
Refusal = Callable[..., BadInput]
WARM: dict[str, Any] = {"temperature": 0.7, "top_k": 40, "max_new_tokens": 4}


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


@pytest.mark.parametrize(("k", "outside"), [(None, "mean"), (6, "mean"), (6, "drop"), (60, "mean")])
def test_a_vocabulary_wide_value_tilts_all_tokens_or_the_candidates(
    decode: Decoder,
    assert_fresh: Any,
    policy: LoadedLM,
    prompts: Prompts,
    vocab_head: Path,
    k: int | None,
    outside: str,
) -> None:
    guide = VocabValue(vocab_head, beta=1.5, k=k, outside=outside)
    rows = decode(guide, samples=1, **WARM)
    assert_fresh(rows, prompts, policy, Sampling(**WARM), [(guide, 1.0)])


def test_a_head_over_the_vocabulary_costs_its_product_at_every_step(
    decode: Decoder, prompts: Prompts, policy: LoadedLM, head: Path, vocab_head: Path
) -> None:
    """2·(D + 1)·V for each of 6 tokens, the last one too; at β = 0 the draws are those without it."""
    product = 2 * (32 + 1) * policy.vocabulary
    wide, scalar = VocabValue(vocab_head, beta=0.0), ScalarValue(head, k=4)
    for without, guide in ((None, wide), (None, VocabValue(vocab_head, beta=0.0, k=3)), (scalar, Sum([scalar, wide]))):
        less, more = decode(without, only=prompts[1:2]), decode(guide, only=prompts[1:2])
        assert tokens(more) == tokens(less)
        assert [len(row.token_ids) for row in more] == [6, 6]
        assert [b.flops - a.flops for a, b in zip(less, more, strict=True)] == [6 * product] * 2


def test_beta_zero_draws_the_base_tokens(decode: Decoder, vocab_head: Path) -> None:
    base = decode(samples=3)
    rows = decode(VocabValue(vocab_head, beta=0.0), samples=3)
    assert tokens(rows) == tokens(base)
    assert max(abs(row.kl) for row in rows) < 1e-9


# refusals


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda f: VocabValue(f, k=0), "guide.k"),
        (lambda f: VocabValue(f, k=10**6), "guide.k"),
        (lambda f: VocabValue(f, outside="prefix"), "guide.outside"),
    ],
)
def test_bad_settings_are_named(refusal: Refusal, policy: LoadedLM, head: Path, make: Any, field: str) -> None:
    assert refusal(make(head), policy).field == field


def test_a_scalar_head_is_another_guide(refusal: Refusal, policy: LoadedLM, head: Path) -> None:
    assert refusal(VocabValue(head), policy).field == "guide.folder"
