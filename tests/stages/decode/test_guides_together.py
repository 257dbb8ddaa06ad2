"""Guides that take other models: emulated fine-tuning, vocabulary-wide values, sums; against fresh numpy sums."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.guides.vocab_value import VocabValue
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.language_model import load_model
from stages.engine.loaded import LoadedLM
from stages.engine.response import Response
from stages.engine.sampling import Draw, Sampling
from stages.engine.terms import Terms
from stages.errors import BadInput
from stages.learn.values.scalar_head import ValueHead, fingerprint
from stages.learn.values.vocab_head import VocabHead

Prompts = list[tuple[str, list[int]]]


def tokens(responses: list[Response]) -> list[list[int]]:
    return [response.token_ids for response in responses]


class Fresh:
    """Every figure from a fresh forward over the whole prefix and float64 numpy over the whole vocabulary."""

    def __init__(self, policy: LoadedLM) -> None:
        self.models = {Path(policy.folder): policy.model}

    def model(self, folder: Path) -> Any:
        if folder not in self.models:
            self.models[folder] = CausalLM(folder).load("cpu").model
        return self.models[folder]

    @torch.inference_mode()
    def logits(self, folder: Path, prefix: list[int]) -> np.ndarray:
        return self.model(folder)(input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1].double().numpy()

    @torch.inference_mode()
    def state(self, folder: Path, prefix: list[int], layer: int) -> torch.Tensor:
        out = self.model(folder)(input_ids=torch.tensor([prefix]), use_cache=False, output_hidden_states=True)
        return out.hidden_states[layer][0, -1]

    def values(self, guide: ScalarValue, base: Path, prefix: list[int], candidates: np.ndarray) -> np.ndarray:
        folder = base if guide.model is None else Path(guide.model.folder)
        head = ValueHead.load(Path(guide.folder))
        betas = [guide.beta] if isinstance(guide.beta, float) else guide.beta
        raw = [head(self.state(folder, [*prefix, int(a)], head.layer)).double().numpy() for a in candidates]
        raw = np.stack(raw)  # (C, M)
        if guide.transform == "log_sigmoid":
            raw = -np.log1p(np.exp(-raw))
        return (raw * np.array(betas)).sum(1)

    def step(
        self, base: Path, prefix: list[int], sampling: Sampling, dense: list[Any], scalar: ScalarValue | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(π₀, π) of guides given as (guide, weight)."""
        raw = self.logits(base, prefix)
        z = raw / sampling.temperature
        if sampling.top_k:
            z = np.where(z >= np.sort(z)[-sampling.top_k], z, -np.inf)
        p = softmax(z)
        t = np.zeros_like(z)
        for guide, weight in dense:
            if isinstance(guide, ImplicitValue):
                untuned = base if guide.untuned is None else Path(guide.untuned.folder)
                ratio = self.logits(Path(guide.tuned.folder), prefix) - self.logits(untuned, prefix)
                t += weight * guide.weight * ratio / sampling.temperature
            else:
                head = VocabHead.load(Path(guide.folder))
                q = guide.beta * weight * head(self.state(base, prefix, head.layer)).double().numpy()
                if guide.k is not None:
                    top = np.argsort(-raw)[: guide.k]
                    others = -np.inf if guide.outside == "drop" else 0.0
                    kept = np.full_like(q, others)
                    kept[top] = q[top] - q[top][p[top] > 0].mean()
                    q = kept
                t += q
        pi = softmax(z + t)
        if scalar is not None:
            candidates = np.argsort(-(z + t))[: scalar.k]
            values = self.values(scalar, base, prefix, candidates)
            centred = values - values[pi[candidates] > 0].mean()
            if scalar.compat == "official":
                centred = centred / sampling.temperature
            weight = np.zeros_like(pi) if scalar.outside == "drop" else pi.copy()
            weight[candidates] = pi[candidates] * np.exp(centred)
            pi = weight / weight.sum()
        return p, pi


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max())
    return p / p.sum()


def divergence(pi: np.ndarray, p: np.ndarray) -> float:
    live = pi > 0
    return float((pi[live] * np.log(pi[live] / p[live])).sum())


def assert_fresh(
    rows: list[Response],
    prompts: Prompts,
    policy: LoadedLM,
    sampling: Sampling,
    dense: list[Any],
    scalar: ScalarValue | None = None,
) -> None:
    """Log-probabilities and KL of the rows are those of fresh forwards."""
    fresh, base = Fresh(policy), Path(policy.folder)
    for row in rows:
        prefix, logprob, base_logprob, kl = list(prompts[row.prompt][1]), 0.0, 0.0, 0.0
        for token in row.token_ids:
            p, pi = fresh.step(base, prefix, sampling, dense, scalar)
            logprob += math.log(pi[token])
            base_logprob += math.log(p[token])
            kl += divergence(pi, p)
            prefix.append(token)
        assert row.logprob == pytest.approx(logprob, abs=2e-4)
        assert row.base_logprob == pytest.approx(base_logprob, abs=2e-4)
        assert row.kl == pytest.approx(kl, abs=2e-4)
    assert sum(row.kl for row in rows) > 0.01


Decoder = Callable[..., list[Response]]
WARM = {"temperature": 0.7, "top_k": 40, "max_new_tokens": 4}


@pytest.mark.parametrize("with_untuned", [False, True])
def test_emulated_fine_tuning_mixes_logits_before_temperature(
    decode: Decoder, policy: LoadedLM, prompts: Prompts, tuned_model: Path, small_model: Path, with_untuned: bool
) -> None:
    guide = ImplicitValue(CausalLM(tuned_model), CausalLM(small_model) if with_untuned else None, weight=0.3)
    rows = decode(guide, samples=1, **WARM)
    assert_fresh(rows, prompts, policy, Sampling(**WARM), [(guide, 1.0)])


@pytest.mark.parametrize(("k", "outside"), [(None, "mean"), (6, "mean"), (6, "drop"), (60, "mean")])
def test_a_vocabulary_wide_value_tilts_all_tokens_or_the_candidates(
    decode: Decoder, policy: LoadedLM, prompts: Prompts, vocab_head: Path, k: int | None, outside: str
) -> None:
    guide = VocabValue(vocab_head, beta=1.5, k=k, outside=outside)
    rows = decode(guide, samples=1, **WARM)
    assert_fresh(rows, prompts, policy, Sampling(**WARM), [(guide, 1.0)])


def test_a_value_on_another_model_steps_beside_the_policy(
    decode: Decoder, policy: LoadedLM, prompts: Prompts, small_model: Path, make_head: Any
) -> None:
    head = make_head(layer=1, size=16, trunk=fingerprint(small_model))
    guide = ScalarValue(head, beta=2.0, k=6, model=CausalLM(small_model))
    assert_fresh(decode(guide, samples=1, **WARM), prompts, policy, Sampling(**WARM), [], guide)


@pytest.mark.parametrize(
    "options", [{"transform": "log_sigmoid"}, {"compat": "official"}, {"outside": "drop"}, {"beta": [1.5, -1.0]}]
)
def test_options_of_a_scalar_value(
    decode: Decoder, policy: LoadedLM, prompts: Prompts, make_head: Any, options: dict[str, Any]
) -> None:
    rewards = ("proxy", "length") if "beta" in options else ("proxy",)
    head = make_head(rewards=rewards, target="fudge" if "transform" in options else "td_lambda")
    guide = ScalarValue(head, **{"beta": 2.0, "k": 6, **options})
    assert_fresh(decode(guide, samples=1, **WARM), prompts, policy, Sampling(**WARM), [], guide)


@pytest.mark.parametrize("outside", ["mean", "drop"])
def test_a_sum_of_dense_and_scalar_guides_has_exact_kl(
    decode: Decoder,
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


# identities


def test_weight_zero_draws_the_base_tokens(decode: Decoder, tuned_model: Path, vocab_head: Path) -> None:
    base = decode(samples=3)
    for guide in (ImplicitValue(CausalLM(tuned_model), weight=0.0), VocabValue(vocab_head, beta=0.0)):
        rows = decode(guide, samples=3)
        assert tokens(rows) == tokens(base)
        assert max(abs(row.kl) for row in rows) < 1e-9


@pytest.fixture(scope="module")
def padded(tiny_model: Path, tuned_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """`padded(which, more)`: the model "base" or "tuned" with `more` rows of padding in its embeddings, likely ones."""

    def make(which: str, more: int) -> Path:
        source = {"base": tiny_model, "tuned": tuned_model}[which]
        folder = tmp_path_factory.mktemp(which)
        tokenizer = AutoTokenizer.from_pretrained(source)
        model: Any = load_model(source, dtype="float32", device="cpu")
        model.resize_token_embeddings(len(tokenizer) + more, mean_resizing=False)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize(
    ("base", "tuned", "untuned"), [(8, 0, None), (8, 8, 0), (8, 0, 0), (0, 8, 0), (0, 0, 8), (8, 16, 0)]
)
def test_vocabularies_that_are_padded_differently(
    prompts: Prompts, padded: Callable[[str, int], Path], base: int, tuned: int, untuned: int | None
) -> None:
    """A weight of 0 is the base, padding and all; at any other, what one of the three lacks is never drawn."""
    policy = CausalLM(padded("base", base)).load("cpu")
    models = [CausalLM(padded("tuned", tuned)), None if untuned is None else CausalLM(padded("base", untuned))]

    def decoded(guide: ImplicitValue | None, sampling: Sampling) -> list[Response]:
        lanes = Lanes(policy)
        terms = Terms() if guide is None else guide.open(lanes, sampling)
        return Engine(lanes, Draw(sampling, 0, 16), terms).run(prompts, 3)

    alone = decoded(None, Sampling(max_new_tokens=6))
    assert tokens(decoded(ImplicitValue(*models, weight=0.0), Sampling(max_new_tokens=6))) == tokens(alone)
    fresh, shared = Fresh(policy), policy.vocabulary - base
    for weight in (0.5, -0.5):
        sampling = Sampling(temperature=0.7, max_new_tokens=1)
        for row in decoded(ImplicitValue(*models, weight=weight), sampling):
            prefix = list(prompts[row.prompt][1])
            z = fresh.logits(Path(policy.folder), prefix)[:shared]
            above, below = (
                z if model is None else fresh.logits(Path(model.folder), prefix)[:shared] for model in models
            )
            pi = softmax((z + weight * (above - below)) / 0.7)
            assert row.token_ids[0] < shared
            assert row.logprob == pytest.approx(math.log(pi[row.token_ids[0]]), abs=2e-4)


def test_the_same_model_tuned_and_untuned_is_the_base(decode: Decoder, tuned_model: Path) -> None:
    rows = decode(ImplicitValue(CausalLM(tuned_model), CausalLM(tuned_model), weight=3.0))
    assert tokens(rows) == tokens(decode())


def test_weight_one_against_the_base_itself_is_the_tuned_model(
    decode: Decoder, policy: LoadedLM, prompts: Prompts, tuned_model: Path
) -> None:
    """z_base + (z_tuned − z_base) = z_tuned."""
    tuned = CausalLM(tuned_model).load("cpu")
    alone = decode(samples=3)  # another policy, the same uniforms
    direct = Engine(Lanes(tuned), Draw(Sampling(max_new_tokens=6), 0, 4)).run(prompts, 3)
    guided = decode(ImplicitValue(CausalLM(tuned_model)), samples=3)
    assert tokens(guided) == tokens(direct)
    assert tokens(guided) != tokens(alone)
    assert [row.logprob for row in guided] == pytest.approx([row.logprob for row in direct], abs=1e-4)


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


def test_emulated_fine_tuning_costs_one_token_of_each_model_a_step(
    decode: Decoder, prompts: Prompts, tuned_model: Path, small_model: Path
) -> None:
    length = len(prompts[1][1])
    both = decode(ImplicitValue(CausalLM(tuned_model), CausalLM(small_model)), only=prompts[1:2])
    assert [row.tokens for row in both] == [3 * length + 3 * 5, 3 * 5]  # the sixth token needs no forward
    one = decode(ImplicitValue(CausalLM(tuned_model)), only=prompts[1:2])
    assert [row.tokens for row in one] == [2 * length + 2 * 5, 2 * 5]


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


def test_a_separate_value_costs_candidates_there_and_one_token_of_the_policy(
    decode: Decoder, prompts: Prompts, small_model: Path, make_head: Any
) -> None:
    """k = 4: four candidates and one from outside in the value model, then the chosen one in the policy."""
    guide = ScalarValue(make_head(layer=2, size=16, trunk=fingerprint(small_model)), k=4, model=CausalLM(small_model))
    (_, second) = decode(guide, only=prompts[1:2])
    assert second.tokens == 6 * 5 + 5


# refusals


def refusal(guide: Any, policy: LoadedLM) -> BadInput:
    with pytest.raises(BadInput) as error:
        guide.open(Lanes(policy), Sampling())
    assert "\n" not in error.value.problem
    return error.value


def test_kinds_of_heads_are_not_mixed_up(policy: LoadedLM, head: Path, vocab_head: Path) -> None:
    assert "use VocabValue" in refusal(ScalarValue(vocab_head), policy).problem
    assert refusal(VocabValue(head), policy).field == "guide.folder"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda f: Sum([]), "guide.guides"),
        (lambda f: Sum([ScalarValue(f)], [1.0, 2.0]), "guide.weights"),
        (lambda f: Sum([ScalarValue(f), ScalarValue(f, k=0)]), "guide.guides.1.k"),
        (lambda f: Sum([ScalarValue(f, k=4), ScalarValue(f, k=5)]), "guide.guides.1"),
        (lambda f: ScalarValue(f, beta=[1.0, 2.0, 3.0]), "guide.beta"),
        (lambda f: ScalarValue(f, beta=[1.0, math.nan]), "guide.beta"),
        (lambda f: ScalarValue(f, transform="exp"), "guide.transform"),
        (lambda f: ScalarValue(f, compat="trl"), "guide.compat"),
        (lambda f: VocabValue(f, k=0), "guide.k"),
        (lambda f: VocabValue(f, k=10**6), "guide.k"),
        (lambda f: VocabValue(f, outside="prefix"), "guide.outside"),
        (lambda f: ImplicitValue(CausalLM(f), weight=math.inf), "guide.weight"),
        (lambda f: ImplicitValue(CausalLM(f)), "guide.tuned.folder"),
        (lambda f: ImplicitValue(CausalLM(f, quantisation="2bit")), "guide.tuned.folder"),
    ],
)
def test_bad_settings_are_named(policy: LoadedLM, head: Path, make: Any, field: str) -> None:
    assert refusal(make(head), policy).field == field


def test_a_guide_that_leaves_no_token_to_draw_is_named(policy: LoadedLM, prompts: Prompts, vocab_head: Path) -> None:
    lanes = Lanes(policy)
    terms = VocabValue(vocab_head).open(lanes, Sampling())
    term: Any = terms.dense[0]
    original = term.tilt
    term.tilt = lambda *given: torch.full_like(original(*given), -math.inf)
    with pytest.raises(FloatingPointError, match=r"log-normalisers of values of .* at step 0 of prompt 'p0'"):
        Engine(lanes, Draw(Sampling(), 0, 8), terms).run(prompts, 1)


@pytest.mark.parametrize("which", ["tuned", "values"])
def test_a_model_that_is_not_finite_is_named_with_its_step(
    policy: LoadedLM, prompts: Prompts, tuned_model: Path, vocab_head: Path, which: str
) -> None:
    guide = ImplicitValue(CausalLM(tuned_model)) if which == "tuned" else VocabValue(vocab_head)
    lanes = Lanes(policy)
    terms = guide.open(lanes, Sampling())
    term: Any = terms.dense[0]
    original, calls = term.tilt, iter([False, False, True])
    term.tilt = lambda *given: original(*given) * (math.nan if next(calls) else 1)
    with pytest.raises(
        FloatingPointError, match=rf"{'logits' if which == 'tuned' else 'values'} of .* at step 2 of prompt 'p0'"
    ):
        Engine(lanes, Draw(Sampling(), 0, 8), terms).run(prompts, 1)
