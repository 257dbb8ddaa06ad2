"""KL of a tuned policy to π₀ agrees with the guided engine, Monte Carlo and numpy, and costs the method nothing."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.decode import divergence
from stages.decode.chunk_search import ChunkSearch
from stages.decode.decode import Decode
from stages.decode.divergence import step_kl
from stages.decode.guides.implicit_value import ImplicitValue
from stages.engine.causal_lm import CausalLM
from stages.engine.distribution import Distribution
from stages.engine.sampling import Sampling
from stages.errors import BadInput
from stages.records import Generation, Prompt, read, write
from stages.runtime import Runtime

TEXTS = ["the cast is", "a dull", "loud and empty", "small and true and"]


@pytest.fixture(scope="module")
def close_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """π₀ with its weights moved a little: what tuning makes of it."""
    folder = tmp_path_factory.mktemp("close_model")
    loaded = CausalLM(tiny_model).load("cpu")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.06)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


Run = Callable[..., list[Generation]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run(policy, base=…, guide=…, samples=1, texts=TEXTS, …)` → generations; keywords of Sampling go there."""

    def decode(policy: Path, *, texts: list[str] = TEXTS, told: dict[str, float] | None = None, **fields: Any):
        write(
            tmp_path / "prompts.parquet",
            Prompt,
            [Prompt(id=f"p{i}", part="test", text=text) for i, text in enumerate(texts)],
        )
        names = ("temperature", "top_p", "greedy", "max_new_tokens")
        sampling = {"max_new_tokens": 6, **{name: fields.pop(name) for name in names if name in fields}}
        runtime = Runtime(rows=fields.pop("rows", 64), metrics=({} if told is None else told).update)
        stage = Decode(
            prompts=tmp_path, parts=["test"], policy=CausalLM(policy), method="m", settings={},
            sampling=Sampling(**sampling), runtime=runtime, **fields,
        )  # fmt: skip
        stage.run(tmp_path)
        return read(tmp_path / "generations.parquet", Generation)

    return decode


def test_one_step_by_hand() -> None:
    # π = (.5, .5, 0), π₀ = (.25, .75, 0): .5·log 2 + .5·log ⅔ = .34657 − .20273 = .14384; twice as hot: log π halves.
    never = -math.inf
    ours = Distribution.of(torch.tensor([[1.0, 1.0, never]]), Sampling())
    theirs = Distribution.of(torch.tensor([[math.log(1), math.log(3), never]]), Sampling())
    assert step_kl(ours, theirs, 1.0).item() == pytest.approx(0.143841, abs=1e-6)
    hot = Sampling(temperature=2.0)  # π₀ = (1, √3) ÷ (1 + √3) = (.36603, .63397)
    expected = 0.5 * math.log(0.5 / 0.36603) + 0.5 * math.log(0.5 / 0.63397)
    assert step_kl(Distribution.of(ours.logits, hot), Distribution.of(theirs.logits, hot), 2.0).item() == pytest.approx(
        expected, abs=1e-5
    )
    only = Distribution.of(torch.tensor([[never, 0.0, never]]), Sampling())
    assert step_kl(only, theirs, 1.0).item() == pytest.approx(-math.log(0.75), abs=1e-6)
    assert step_kl(theirs, only, 1.0).item() == math.inf


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_it_is_what_the_guided_engine_reports_of_the_same_policy(
    run: Run, tiny_model: Path, close_model: Path, temperature: float
) -> None:
    """z_base + 1·(z_tuned − z_base): the implicit guide of weight 1 is the tuned policy, token for token."""
    guide = ImplicitValue(CausalLM(close_model), weight=1.0)
    guided = run(tiny_model, base=tiny_model, guide=guide, samples=3, temperature=temperature)
    tuned = run(close_model, base=tiny_model, samples=3, temperature=temperature)
    assert [row.token_ids for row in tuned] == [row.token_ids for row in guided]
    assert {row.kl_kind for row in tuned} == {row.kl_kind for row in guided} == {"exact"}
    kl = np.array([row.kl for row in guided])
    assert kl.min() > 0.01
    assert [row.kl for row in tuned] == pytest.approx(kl.tolist(), abs=1e-5)
    assert [row.base_logprob for row in tuned] == pytest.approx([row.base_logprob for row in guided], abs=1e-4)


def test_it_agrees_with_the_log_ratio_of_the_draws(run: Run, tiny_model: Path, close_model: Path) -> None:
    told: dict[str, float] = {}
    rows = run(close_model, base=tiny_model, samples=600, texts=TEXTS[:1], max_new_tokens=4, told=told)
    kl = np.array([row.kl for row in rows])
    ratio = np.array([row.logprob - row.base_logprob for row in rows])
    assert kl.mean() > 0.05
    assert abs((kl - ratio).mean()) < 4 * (kl - ratio).std() / math.sqrt(len(kl))
    assert kl.std() < ratio.std()
    assert told["kl"] == pytest.approx(kl.mean())
    assert told["outside_base"] == 0


@torch.inference_mode()
def by_hand(row: Generation, policy: Path, base: Path, temperature: float) -> float:
    """Fresh forwards of every prefix, float64 numpy."""
    total, loaded = 0.0, [CausalLM(folder).load("cpu") for folder in (policy, base)]
    prefix = list(loaded[0].tokenizer(TEXTS[int(row.prompt_id[1:])])["input_ids"])
    for token in row.token_ids:
        logs = []
        for model in loaded:
            z = model.model(input_ids=torch.tensor([prefix])).logits[0, -1].double().numpy() / temperature
            logs.append(z - z.max() - math.log(np.exp(z - z.max()).sum()))
        total += float((np.exp(logs[0]) * (logs[0] - logs[1])).sum())
        prefix.append(token)
    return total


def test_truncated_apart_it_is_the_kl_before_truncation_and_says_so(
    run: Run, tiny_model: Path, tuned_model: Path
) -> None:
    told: dict[str, float] = {}
    rows = run(tuned_model, base=tiny_model, samples=2, temperature=0.9, top_p=0.8, told=told)
    assert {row.kl_kind for row in rows} == {"untruncated"}
    for row in rows[::3]:
        assert row.kl == pytest.approx(by_hand(row, tuned_model, tiny_model, 0.9), rel=1e-5)
    outside = [row.base_logprob == -math.inf for row in rows]
    assert any(outside)  # π₀, truncated, draws another set: as sampled the KL is infinite
    assert told["outside_base"] == sum(outside) / len(rows)


def test_the_measurement_is_not_charged_to_the_method(run: Run, tiny_model: Path, close_model: Path) -> None:
    told: dict[str, float] = {}
    alone = run(close_model)
    measured = run(close_model, base=tiny_model, told=told)
    assert [(row.token_ids, row.tokens, row.flops) for row in measured] == [
        (row.token_ids, row.tokens, row.flops) for row in alone
    ]
    # Teacher-forced, each of the two models reads prompt and response once; decoding read all but the last token.
    tokenizer = CausalLM(close_model).load("cpu").tokenizer
    read_once = sum(len(tokenizer(TEXTS[int(row.prompt_id[1:])])["input_ids"]) + len(row.token_ids) for row in alone)
    assert told["kl_tokens"] == 2 * read_once
    assert sum(row.flops for row in alone) < told["kl_flops"] < 3 * sum(row.flops for row in alone)
    assert sum(row.seconds for row in measured) * told["tokens_per_second"] == pytest.approx(
        sum(len(row.token_ids) for row in measured)
    )


def test_rows_change_nothing_and_out_of_memory_halves_them(
    run: Run, tiny_model: Path, close_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = run(close_model, base=tiny_model, samples=3, rows=64)
    one = run(close_model, base=tiny_model, samples=3, rows=1)
    sizes, predict = [], divergence.predict

    def refusing(model: Any, batch: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 4:
            raise torch.OutOfMemoryError("no memory for so many")
        return predict(model, batch)

    monkeypatch.setattr(divergence, "predict", refusing)
    monkeypatch.setattr(divergence, "CELLS", 5 * 400)  # five states at a time
    halved = run(close_model, base=tiny_model, samples=3, rows=64)
    assert sizes[0] == 12
    assert max(sizes[2:]) <= 6
    assert [row.kl for row in one] == pytest.approx([row.kl for row in many], abs=1e-5)
    assert [row.kl for row in halved] == pytest.approx([row.kl for row in many], abs=1e-5)


def test_padding_of_the_vocabulary_is_no_difference(
    run: Run, tiny_model: Path, close_model: Path, tmp_path: Path
) -> None:
    loaded = CausalLM(tiny_model).load("cpu")
    wide = tmp_path / "wide"
    loaded.model.resize_token_embeddings(loaded.vocabulary + 24, mean_resizing=False)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[-24:] = -100.0 * loaded.model.get_input_embeddings().weight[2]
    loaded.model.save_pretrained(wide)
    loaded.tokenizer.save_pretrained(wide)
    narrow = run(close_model, base=tiny_model)
    assert [row.kl for row in run(close_model, base=wide)] == pytest.approx([row.kl for row in narrow], abs=1e-5)


def test_no_kl_is_claimed_where_none_was_measured(
    run: Run, tiny_model: Path, close_model: Path, strange_model: Path
) -> None:
    for fields in (
        {"greedy": True},
        {"guide": ImplicitValue(CausalLM(close_model), weight=0.5)},
        {"search": ChunkSearch(2, 2, 2, None), "guide": ImplicitValue(CausalLM(close_model))},
        {"base": strange_model},  # another vocabulary
    ):
        rows = run(close_model, **{"base": tiny_model, **fields})
        assert {row.kl_kind for row in rows} == {"none"}
        assert all(math.isnan(row.kl) and math.isnan(row.base_logprob) for row in rows)


def test_a_base_that_is_not_there_is_named_before_anything_is_decoded(run: Run, tiny_model: Path) -> None:
    with pytest.raises(BadInput, match="nowhere is not a folder") as error:
        run(tiny_model, base=Path("nowhere"))
    assert error.value.field == "base"


def test_the_base_policy_s_context_holds_what_its_own_template_makes_of_a_prompt(
    run: Run, close_model: Path, make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    """π₀ has positions for 12 tokens, the policy for 256; prompts are up to six tokens."""
    narrow = make_tiny_model(tmp_path / "narrow", context=12)
    assert len(run(close_model, base=narrow, max_new_tokens=2)) == len(TEXTS)
    with pytest.raises(
        BadInput, match=rf"^base: a prompt and its response are \d+ tokens as {narrow} encodes them, bu"
    ):
        run(close_model, base=narrow, max_new_tokens=20)
