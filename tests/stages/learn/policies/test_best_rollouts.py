"""References made of the best-ranked rollouts."""

from pathlib import Path

import pytest

from stages.errors import BadInput
from stages.learn.policies.best_rollouts import BestRollouts
from stages.records import Labelled, Prompt, read, write


def labelled(prompt: str, sample: int, text: str, reward: float) -> Labelled:
    return Labelled(
        prompt_id=prompt,
        sample=sample,
        token_ids=[5, 2],
        text=text,
        logprob=-1.0,
        finished=True,
        part="train",
        rewards={"proxy": reward},
    )


@pytest.fixture
def stage(tmp_path: Path) -> BestRollouts:
    prompts = [Prompt(id=f"p{i}", part="train", text=f"text {i}", opening="o") for i in range(4)]
    write(tmp_path / "prompts.parquet", Prompt, prompts)
    rows = [
        labelled(f"p{i}", s, text, reward)
        for i in range(4)
        for s, (text, reward) in enumerate([(" bad", -1.0), (" good", 2.0), (" good", 2.0), (" fine", 1.0), ("", 9.0)])
    ]
    write(tmp_path / "labels.parquet", Labelled, rows)
    return BestRollouts(tmp_path, tmp_path, best=2, heldout=0.25)


def test_the_best_distinct_responses_become_references(stage: BestRollouts, tmp_path: Path) -> None:
    """Empty responses teach nothing; equal ones count once. One prompt of four only measures."""
    told: dict[str, float] = {}
    stage.runtime.metrics = told.update  # type: ignore[assignment]
    out = tmp_path / "out"
    out.mkdir()
    stage.run(out)
    found = read(out / "prompts.parquet", Prompt)
    assert [(p.id, p.part, p.reference) for p in found[:4]] == [
        ("p0-0", "best_heldout", " good"),
        ("p0-1", "best_heldout", " fine"),
        ("p1-0", "best", " good"),
        ("p1-1", "best", " fine"),
    ]
    assert {p.part for p in found[2:]} == {"best"}
    assert (found[0].text, found[0].opening) == ("text 0", "o")
    assert told == {"references": 8, "proxy_kept": 1.5, "proxy_all": 1.0}  # (−1 + 2 + 2 + 1) ÷ 4


@pytest.mark.parametrize(
    ("settings", "field"), [({"best": 0}, "best"), ({"reward": "gold"}, "reward"), ({"heldout": 0.0}, "heldout")]
)
def test_bad_settings_are_named(stage: BestRollouts, tmp_path: Path, settings: dict, field: str) -> None:
    for name, value in settings.items():
        setattr(stage, name, value)
    with pytest.raises(BadInput) as error:
        stage.run(tmp_path)
    assert error.value.field == field
