"""The figures of a point, by hand."""

import math

import pytest

from stages.records import Score
from sweeps.figures import figures
from sweeps.points import Point


def score(prompt: str, sample: int, gold: float, seconds: float, length: int, finished: bool = True) -> Score:
    return Score(
        prompt_id=prompt, part="test", sample=sample, method="vas", settings="{}", prompt="", text="",
        rewards={"proxy": 2 * gold, "gold": gold}, kl=1.0, kl_kind="exact", logprob=-1.0, base_logprob=-2.0,
        length=length, finished=finished, distinct_2=0.5, repetition=0.1, tokens=3 * length, flops=7.0,
        seconds=seconds,
    )  # fmt: skip


def test_prompts_count_alike_however_many_samples_they_have() -> None:
    rows = [score("a", 0, 1.0, 1.0, 10), score("a", 1, 3.0, 2.0, 20, finished=False), score("b", 0, 5.0, 9.0, 30)]
    found = figures(Point("x", "vas", {}, rows), "test", draws=1000, seed=0)
    assert (found.samples, found.gold.items) == (3, 2)
    assert (found.gold.value, found.proxy.value) == (3.5, 7.0)  # a: (1 + 3) / 2 = 2, b: 5
    assert found.finished.value == 0.75  # a: ½, b: 1
    assert found.tokens.value == 67.5  # a: 45, b: 90
    # Rates and times are sums: 60 tokens in 12 s, all 3 responses in 12 s.
    assert found.tokens_per_second.value == 5
    assert found.seconds.value == pytest.approx(12.0)
    assert found.seconds.low < 12 < found.seconds.high
    assert (found.distinct_2.value, found.repetition.value, found.flops.value) == (0.5, 0.1, 7.0)


def test_one_batch_divided_evenly_says_nothing_about_how_its_time_would_vary() -> None:
    rows = [score("a", 0, 1.0, 2.0, 10), score("b", 0, 2.0, 2.0, 20)]
    found = figures(Point("x", "vas", {}, rows), "test", draws=1000, seed=0)
    assert found.seconds.value == 4.0
    assert math.isnan(found.seconds.low)
