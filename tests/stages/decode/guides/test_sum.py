"""Several guides at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.guides.vocab_value import VocabValue
from stages.engine.causal_lm import CausalLM
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.learn.values.scalar_head import fingerprint

Prompts = list[tuple[str, list[int]]]
Decoder = Callable[..., list[Response]]
Refusal = Callable[..., BadInput]
WARM: dict[str, Any] = {"temperature": 0.7, "top_k": 40, "max_new_tokens": 4}


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


@pytest.mark.parametrize("outside", ["mean", "drop"])
def test_a_sum_of_dense_and_scalar_guides_has_exact_kl(
    decode: Decoder,
    assert_fresh: Any,
    policy: LoadedLM,
    prompts: Prompts,
    tuned_model: Path,
    vocab_head: Path,
    head: Path,
    outside: str,
) -> None:
    implicit, wide = ImplicitValue(CausalLM(tuned_model), weight=0.3), VocabValue(vocab_head, beta=1.0)
    scalar = ScalarValue(head, beta=2.0, k=6, outside=outside)
    rows = decode(Sum([implicit, scalar, wide], [0.5, 1.0, -1.0]), samples=1, **WARM)
    assert_fresh(rows, prompts, policy, Sampling(**WARM), [(implicit, 0.5), (wide, -1.0)], scalar)


def test_two_values_add_up_on_the_same_candidates(
    decode: Decoder, make_head: Any, small_model: Path, policy: LoadedLM
) -> None:
    """β = 1.5 and .5 of the same head is β = 2; a value of layer 1 and one of another model join in."""
    head = make_head()
    once = decode(ScalarValue(head, beta=2.0, k=5))
    twice = decode(Sum([ScalarValue(head, beta=1.0, k=5), ScalarValue(head, beta=0.5, k=5)], [1.5, 1.0]))
    assert tokens(once) == tokens(twice)
    assert [row.kl for row in once] == pytest.approx([row.kl for row in twice], abs=1e-5)
    other = ScalarValue(
        make_head(layer=1, size=16, trunk=fingerprint(small_model)), k=5, beta=0.0, model=CausalLM(small_model)
    )
    lower = ScalarValue(make_head(layer=1), k=5, beta=0.0)
    assert tokens(decode(Sum([ScalarValue(head, beta=2.0, k=5), other, lower]))) == tokens(once)


def test_results_do_not_depend_on_the_rows_that_step_together(
    decode: Decoder, tuned_model: Path, small_model: Path, make_head: Any
) -> None:
    value = ScalarValue(
        make_head(layer=1, size=16, trunk=fingerprint(small_model)), k=4, beta=1.0, model=CausalLM(small_model)
    )
    guide = Sum([ImplicitValue(CausalLM(tuned_model), CausalLM(small_model), weight=0.3), value])
    runs = [decode(guide, samples=3, rows=rows, max_new_tokens=7) for rows in (1, 4, 64)]
    for run in runs[1:]:
        assert tokens(run) == tokens(runs[0])
        assert [row.kl for row in run] == pytest.approx([row.kl for row in runs[0]], abs=1e-4)
        assert [(row.tokens, row.flops) for row in run] == [(row.tokens, row.flops) for row in runs[0]]


# refusals


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda f: Sum([]), "guide.guides"),
        (lambda f: Sum([ScalarValue(f)], [1.0, 2.0]), "guide.weights"),
        (lambda f: Sum([ScalarValue(f), ScalarValue(f, k=0)]), "guide.guides.1.k"),
        (lambda f: Sum([ScalarValue(f, k=4), ScalarValue(f, k=5)]), "guide.guides.1"),
    ],
)
def test_bad_settings_are_named(refusal: Refusal, policy: LoadedLM, head: Path, make: Any, field: str) -> None:
    assert refusal(make(head), policy).field == field
