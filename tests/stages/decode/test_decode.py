"""The stage `decode`, end to end on the tiny model."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.decode.best_of import BestOf
from stages.decode.chunk_search import ChunkSearch
from stages.decode.decode import Decode
from stages.decode.guides.implicit_value import ImplicitValue
from stages.decode.guides.scalar_value import ScalarValue
from stages.decode.guides.sum import Sum
from stages.decode.scorers.explicit import ExplicitScorer
from stages.decode.scorers.implicit import ImplicitScorer
from stages.engine.causal_lm import CausalLM
from stages.engine.engine import Engine
from stages.engine.lanes import Lanes
from stages.engine.sampling import Draw, Sampling
from stages.errors import BadInput
from stages.records import Generation, Prompt, read, write
from stages.reward import read_uncounted
from stages.runtime import Runtime


class Vowels:
    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        return np.array([sum(text.count(v) for v in "aeiou") for text in responses], dtype=float)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    parts = ["train", "test", "validation", "test"]
    texts = ["the cast is", "a dull", "loud and empty", "small and true and"]
    records = [
        Prompt(id=f"p{i}", part=part, text=text) for i, (part, text) in enumerate(zip(parts, texts, strict=True))
    ]
    write(tmp_path / "prompts.parquet", Prompt, records)
    return tmp_path


@pytest.fixture
def stage(folder: Path, tiny_model: Path):  # type: ignore[no-untyped-def]
    def build(**fields: Any) -> Decode:
        defaults: dict[str, Any] = {
            "prompts": folder,
            "parts": ["test"],
            "policy": CausalLM(tiny_model),
            "method": "base",
            "settings": {},
            "sampling": Sampling(max_new_tokens=5),
        }
        return Decode(**{**defaults, **fields})

    return build


def generations(stage: Decode, out: Path) -> list[Generation]:
    out.mkdir(exist_ok=True)
    stage.run(out)
    return read(out / "generations.parquet", Generation)


def test_base(stage, tmp_path: Path) -> None:
    told: dict[str, float] = {}
    runtime = Runtime(metrics=told.update)
    rows = generations(stage(samples=3, runtime=runtime), tmp_path / "out")
    assert [(row.prompt_id, row.sample) for row in rows] == [(p, s) for p in ("p1", "p3") for s in range(3)]
    assert all(row.kl == 0 and row.kl_kind == "exact" and row.logprob == row.base_logprob for row in rows)
    assert all(row.part == "test" and row.seconds > 0 and row.flops > 0 for row in rows)
    length = sum(len(row.token_ids) for row in rows)
    assert told["length"] == length / 6
    assert told["tokens_per_second"] == pytest.approx(length / sum(row.seconds for row in rows))
    assert told["finished"] == sum(row.finished for row in rows) / 6
    assert told["kl"] == 0


def test_vas(stage, head: Path, tmp_path: Path) -> None:
    guide = ScalarValue(head, beta=3.0, k=6)
    rows = generations(stage(guide=guide, method="vas", settings={"k": 6, "beta": 3.0}), tmp_path / "out")
    assert all(row.kl > 0 and row.kl_kind == "exact" and row.method == "vas" for row in rows)
    assert rows[0].settings == '{"beta": 3.0, "k": 6}'
    assert json.loads(rows[0].settings) == {"k": 6, "beta": 3.0}


def test_best_of_n_returns_the_best_of_the_bases_samples(stage, tmp_path: Path) -> None:
    base = generations(stage(samples=4), tmp_path / "base")
    best = generations(stage(search=BestOf(4, Vowels()), method="bon"), tmp_path / "bon")
    for row in best:
        of = [b for b in base if b.prompt_id == row.prompt_id]
        rewards = Vowels().score([], [b.text for b in of])
        assert row.text == of[int(rewards.argmax())].text
        assert row.tokens == sum(b.tokens for b in of)
        assert (row.kl, row.kl_kind) == (pytest.approx(math.log(4) - 0.75), "bound")
    assert [read_uncounted(tmp_path / name) for name in ("base", "bon")] == [[], ["Vowels"]]


def test_best_of_one_is_the_base(stage, tmp_path: Path) -> None:
    base = generations(stage(samples=2), tmp_path / "base")
    one = generations(stage(samples=2, search=BestOf(1, Vowels())), tmp_path / "bon")
    assert [row.token_ids for row in one] == [row.token_ids for row in base]
    assert all(row.kl == 0 for row in one)


def test_a_second_output_of_best_of_n_uses_other_samples(stage, tmp_path: Path) -> None:
    """Output s of Best-of-2 is chosen from samples 2s and 2s + 1."""
    base = generations(stage(samples=4), tmp_path / "base")
    best = generations(stage(samples=2, search=BestOf(2, Vowels())), tmp_path / "bon")
    for row in best:
        allowed = [b.token_ids for b in base if b.prompt_id == row.prompt_id and b.sample // 2 == row.sample]
        assert row.token_ids in allowed


def test_kl_is_not_claimed_where_there_is_no_closed_form(stage, head: Path, tmp_path: Path) -> None:
    guide = ScalarValue(head, k=4)
    both = generations(stage(guide=guide, search=BestOf(2, Vowels())), tmp_path / "both")
    greedy = generations(stage(guide=guide, sampling=Sampling(greedy=True, max_new_tokens=3)), tmp_path / "greedy")
    assert all(math.isnan(row.kl) and row.kl_kind == "none" for row in [*both, *greedy])


def test_ivg(stage, tuned_model: Path, head: Path, tmp_path: Path) -> None:
    """Implicit value per token, explicit value per chunk: no KL is claimed, all rows count."""
    guide, search = ImplicitValue(CausalLM(tuned_model)), ChunkSearch(2, 2, 2, ExplicitScorer(head))
    rows = generations(stage(guide=guide, search=search, method="ivg"), tmp_path / "ivg")
    base = generations(stage(), tmp_path / "base")
    assert [(row.prompt_id, row.sample) for row in rows] == [("p1", 0), ("p3", 0)]
    assert all(math.isnan(row.kl) and row.kl_kind == "none" for row in rows)
    assert all(row.tokens > 4 * other.tokens for row, other in zip(rows, base, strict=True))
    none = generations(stage(guide=guide, search=ChunkSearch(2, 2, 2, None)), tmp_path / "none")
    assert all(row.kl > 0 and row.kl_kind == "exact" for row in none)


def test_each_model_encodes_the_prompt_with_its_own_chat_template(
    stage, folder: Path, tiny_model: Path, tuned_model: Path, tmp_path: Path
) -> None:
    """A tuned model with a template of its own: its lane's prompt differs, the response's tokens are shared."""
    message = [{"role": "user", "content": "the cast"}]
    write(folder / "prompts.parquet", Prompt, [Prompt(id="p", part="test", text="the cast", messages=message)])
    copies = {}
    for name, source, template in (
        ("base", tiny_model, "{{ messages[0].content }}"),
        ("tuned", tuned_model, "{{ messages[0].content }} is superb"),
    ):
        copies[name] = tmp_path / name
        shutil.copytree(source, copies[name])
        (copies[name] / "chat_template.jinja").write_text(template)
    guide = ImplicitValue(CausalLM(copies["tuned"]))
    (own,) = generations(stage(policy=CausalLM(copies["base"]), guide=guide), tmp_path / "own")
    sampling, policy = Sampling(max_new_tokens=5), CausalLM(copies["base"]).load("cpu")
    lanes = Lanes(policy)
    guide.open(lanes, sampling)
    prompt, longer = (policy.tokenizer(text)["input_ids"] for text in ("the cast", "the cast is superb"))
    lanes.encode([("p", prompt)], [Prompt(id="p", part="test", text="", messages=message)], 5)
    assert [lane.prompts for lane in lanes.all] == [[prompt], [longer]]
    tuned = CausalLM(copies["tuned"]).load("cpu")
    (alone,) = Engine(Lanes(tuned), Draw(sampling, 1, 1)).run([("p", longer)], 1)
    assert own.token_ids == alone.token_ids  # z_base + (z_tuned − z_base)


def test_rows_and_progress_change_nothing(stage, head: Path, tmp_path: Path) -> None:
    guide = ScalarValue(head, beta=2.0, k=4)
    one = generations(stage(guide=guide, samples=3, runtime=Runtime(rows=1)), tmp_path / "one")
    many = generations(stage(guide=guide, samples=3, runtime=Runtime(rows=64)), tmp_path / "many")
    assert [row.token_ids for row in one] == [row.token_ids for row in many]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"parts": ["gold"]}, "parts"),
        ({"parts": []}, "parts"),
        ({"samples": 0}, "samples"),
        ({"sampling": Sampling(temperature=0.0)}, "sampling.temperature"),
        ({"sampling": Sampling(max_new_tokens=300)}, "prompts"),
        ({"search": BestOf(0, Vowels())}, "search.n"),
        ({"search": ChunkSearch(beams=0)}, "search.beams"),
        ({"search": ChunkSearch(chunk=-1)}, "search.chunk"),
        ({"search": ChunkSearch(scorer=ExplicitScorer(Path("nowhere")))}, "search.scorer.folder"),
        ({"search": ChunkSearch(scorer=ImplicitScorer(CausalLM(Path("nowhere"))))}, "search.scorer.tuned.folder"),
        ({"guide": ImplicitValue(CausalLM(Path("nowhere")))}, "guide.tuned.folder"),
        ({"guide": Sum([])}, "guide.guides"),
        ({"sampling": Sampling(min_p=1.0)}, "sampling.min_p"),
        ({"prompts": Path("nowhere")}, "prompts"),
        ({"policy": CausalLM(Path("nowhere"))}, "policy.folder"),
    ],
)
def test_bad_input_is_named(stage, tmp_path: Path, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as error:
        stage(**fields).run(tmp_path)
    assert error.value.field == field
    assert "\n" not in error.value.problem


def test_too_many_candidates_are_refused(stage, head: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"guide\.k: 60000 candidates, but the vocabulary has"):
        stage(guide=ScalarValue(head, k=60000)).run(tmp_path)


@pytest.mark.parametrize("method", ["guided", "best of n", "chunk search"])
def test_shards_merge_into_the_same_generations(stage, head: Path, tmp_path: Path, method: str) -> None:
    fields: dict[str, Any] = {
        "guided": {"guide": ScalarValue(head, beta=3.0, k=6), "samples": 2},
        "best of n": {"search": BestOf(3, Vowels())},
        "chunk search": {"search": ChunkSearch(beams=2, successors=2, chunk=2, scorer=ExplicitScorer(head))},
    }[method]
    told: dict[str, float] = {}
    decode = stage(**fields, runtime=Runtime(metrics=told.update))
    whole = generations(decode, tmp_path / "whole")
    alone = dict(told)
    folders = [tmp_path / str(index) for index in range(3)]  # of two prompts: the first shard is empty
    for index, part in enumerate(folders):
        part.mkdir()
        decode.run_shard(part, index, 3)
    (tmp_path / "merged").mkdir()
    decode.merge(folders, tmp_path / "merged")
    merged = read(tmp_path / "merged/generations.parquet", Generation)
    assert [(r.prompt_id, r.sample, r.token_ids) for r in whole] == [
        (r.prompt_id, r.sample, r.token_ids) for r in merged
    ]
    assert [r.kl for r in whole] == pytest.approx([r.kl for r in merged], rel=1e-4, abs=1e-7, nan_ok=True)
    assert told["length"] == alone["length"]


def test_a_tuned_policy_reports_its_kl_to_the_base_and_not_to_itself(
    stage, tiny_model: Path, tuned_model: Path, tmp_path: Path
) -> None:
    same = generations(stage(base=tiny_model), tmp_path / "same")
    assert {(row.kl, row.kl_kind) for row in same} == {(0.0, "exact")}
    tuned = generations(stage(policy=CausalLM(tuned_model), base=tiny_model), tmp_path / "tuned")
    assert all(row.kl > 0 and row.kl_kind == "exact" for row in tuned)


@pytest.mark.parametrize(
    ("trained", "options", "line"),
    [
        ({"target": "td_lambda"}, {"transform": "log_sigmoid"}, "guide.transform: log_sigmoid takes FUDGE's logits"),
        ({"dtype": "bfloat16"}, {}, "guide.folder: the value was trained on states in bfloat16"),
    ],
)
def test_a_value_is_read_as_it_was_trained(
    stage, make_head: Any, tmp_path: Path, trained: dict[str, str], options: dict[str, Any], line: str
) -> None:
    with pytest.raises(BadInput, match=line):
        generations(stage(guide=ScalarValue(make_head(**trained), **options)), tmp_path / "out")
    fitting = {"target": "fudge"} if "target" in trained else {"dtype": "float32"}
    assert generations(stage(guide=ScalarValue(make_head(**fitting), **options)), tmp_path / "out")
