"""Model cards: what they say of a model, and that they name no place on this machine."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stages import records
from stages.learn.cards import model_card, rollouts_table, table
from stages.learn.loop.trainer import Trainer
from stages.records import Labelled
from stages.runtime import Runtime


@dataclass
class Stage:
    labels: Path
    repo: str = "owner/name"
    rate: float = 0.5
    trainer: Trainer = field(default_factory=lambda: Trainer(clip=2.0))
    runtime: Runtime = field(default_factory=Runtime)


def test_a_card_has_three_sections_and_shows_of_a_path_its_last_name():
    card = model_card("Value model", "About.", ["some data"], Stage(Path("/home/someone/labels")), {"loss": 0.123456})
    assert card.splitlines() == [
        "# Value model",
        "",
        "About.",
        "",
        "## Data",
        "",
        "- some data",
        "",
        "## Configuration",
        "",
        "- labels: labels",
        "- repo: name",
        "- rate: 0.5",
        "- trainer: Trainer(precision=32, clip=2.0, schedule=cosine, warmup=0.1, max_steps=0, patience=0, "
        "check_every=50)",
        "",
        "## Measured",
        "",
        "- loss: 0.1235",
    ]


def test_a_table_is_named_by_its_content(tmp_path: Path):
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.parquet").write_bytes(content)
    a, b, c = (table(tmp_path / name / "t.parquet", "1 row") for name in "abc")
    # sha256 of "x"
    assert a == "1 row, from `t.parquet` (sha256 2d711642b726b044…)"
    assert a == b != c


@pytest.mark.parametrize("parts", [["train"], ["train", "extra"]])
def test_rollouts_are_counted_by_prompt_and_part(tmp_path: Path, parts: list[str]):
    rows = [
        Labelled(
            prompt_id=f"p{i % 3}",
            sample=i // 3,
            token_ids=[5],
            text="",
            logprob=0.0,
            finished=True,
            part=parts[i % len(parts)],
            rewards={},
        )
        for i in range(6)
    ]
    records.write(tmp_path / "labels.parquet", Labelled, rows)
    shown = ", ".join(f"`{part}`" for part in sorted(parts))
    assert rollouts_table(tmp_path, rows, held=2).startswith(
        f"6 labelled rollouts to 3 prompts of part {shown}, those to 2 of the prompts only measure, from `labels.p"
    )
