"""Scoring generations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import records
from stages.errors import BadInput
from stages.records import Generation, Prompt, Score
from stages.runtime import Runtime
from stages.score import ScoreGenerations, distinct_2, repetition


@dataclass
class Length:
    """Characters of opening and response: a reward that anybody can recompute."""

    broken_at: str = ""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        pairs = zip(prompts, responses, strict=True)
        return np.array([float("nan") if r == self.broken_at else float(len(p.opening + r)) for p, r in pairs])


class Shapeless:
    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        return np.zeros((len(responses), 1))


def generation(prompt_id: str, sample: int, text: str) -> Generation:
    return Generation(
        prompt_id=prompt_id, sample=sample, token_ids=[7, 8, 2], text=text, logprob=-3.0, finished=True, part="test",
        method="vas", settings='{"beta": 4.0}', base_logprob=-5.0, kl=2.5, kl_kind="exact", tokens=63, flops=1e9,
        seconds=0.25,
    )  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    prompts = [Prompt(id="a", part="test", text="Film: A", opening="A"), Prompt(id="b", part="test", text="Film: It")]
    records.write(tmp_path / "prompts" / "prompts.parquet", Prompt, prompts)
    made = [generation("b", 0, " is so good is so"), generation("a", 0, " dud"), generation("a", 1, " gem")]
    records.write(tmp_path / "decode" / "generations.parquet", Generation, made)
    return {"generations": tmp_path / "decode", "prompts": tmp_path / "prompts"}


def test_each_generation_gets_every_reward_in_its_own_order(inputs: dict[str, Any], tmp_path: Path) -> None:
    ScoreGenerations(**inputs, rewards={"proxy": Length(), "gold": Length()}, runtime=Runtime(rows=2)).run(tmp_path)
    scores = records.read(tmp_path / "scores.parquet", Score)
    assert [(s.prompt_id, s.sample) for s in scores] == [("b", 0), ("a", 0), ("a", 1)]
    # " is so good is so" is 17 characters behind an empty opening; "A dud" and "A gem" are 5.
    assert [s.rewards for s in scores] == [{"proxy": n, "gold": n} for n in (17.0, 5.0, 5.0)]
    first = scores[0]
    assert (first.prompt, first.method, first.kl, first.length, first.tokens) == ("Film: It", "vas", 2.5, 3, 63)
    assert first.distinct_2 == 3 / 4  # is-so, so-good, good-is, is-so


def test_the_portion_size_changes_nothing(inputs: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for rows in (1, 64):
        out = tmp_path / str(rows)
        out.mkdir()
        ScoreGenerations(**inputs, rewards={"proxy": Length()}, runtime=Runtime(rows=rows)).run(out)
        found.append(records.read(out / "scores.parquet", Score))
    assert found[0] == found[1]


def test_means_are_reported_by_part(inputs: dict[str, Any], tmp_path: Path) -> None:
    metrics: dict[str, float] = {}
    ScoreGenerations(**inputs, rewards={"gold": Length()}, runtime=Runtime(metrics=metrics.update)).run(tmp_path)
    assert metrics["test/gold"] == 9.0  # (17 + 5 + 5) / 3
    assert metrics["test/length"] == 3.0


def test_a_reward_that_is_not_a_number_is_refused_by_name(inputs: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^rewards\.gold: Length gave nan for prompt 'a' and response ' gem'"):
        ScoreGenerations(**inputs, rewards={"proxy": Length(), "gold": Length(broken_at=" gem")}).run(tmp_path)
    assert not (tmp_path / "scores.parquet").exists()


@pytest.mark.parametrize(
    ("reward", "line"),
    [
        (Shapeless(), r"rewards\.proxy: Shapeless\.score gave shape \(3, 1\)"),
        (object(), r"rewards\.proxy: object is no reward"),
    ],
)
def test_what_is_no_reward_is_refused(inputs: dict[str, Any], tmp_path: Path, reward: object, line: str) -> None:
    with pytest.raises(BadInput, match=line):
        ScoreGenerations(**inputs, rewards={"proxy": reward}).run(tmp_path)


def test_generations_of_other_prompts_are_refused(inputs: dict[str, Any], tmp_path: Path) -> None:
    records.write(tmp_path / "decode" / "generations.parquet", Generation, [generation("z", 0, "x")])
    with pytest.raises(BadInput, match=r"^prompts: prompt 'z' has generations but is not among the prompts"):
        ScoreGenerations(**inputs, rewards={"proxy": Length()}).run(tmp_path)


def test_missing_generations_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^generations: "):
        ScoreGenerations(generations=tmp_path, prompts=tmp_path, rewards={}).run(tmp_path)


def test_distinct_2_and_repetition() -> None:
    assert distinct_2("one") == 1.0
    assert distinct_2("so so so") == 0.5  # so-so twice: one distinct of two
    assert repetition("a b c") == 0.0
    # a b c d | b c d a | c d a b | d a b c | a b c d: one of five occurred before.
    assert repetition("A b, c d. a b c d") == pytest.approx(0.2)
