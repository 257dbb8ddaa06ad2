"""How stages are named while they run, and what the view says of them."""

import io

from omegaconf import OmegaConf
from rich.console import Console

from pipeline.graph import Node
from pipeline.points import Point
from pipeline.progress import FEW, Terminal, title


def test_a_stage_is_named_by_what_its_points_have_in_common(toy) -> None:
    out = toy.tilt("plan", "-m", "voice.word=a,b", "first.word=x,y").stdout
    named = [line[2:].rpartition("?")[0].strip() for line in out.splitlines()[:7]]
    assert sorted(named) == [
        "compare",
        "first (word=x)",
        "first (word=y)",
        "second (word=a word=x)",
        "second (word=a word=y)",
        "second (word=b word=x)",
        "second (word=b word=y)",
    ]


def node(name: str, *labels: str, key: str = "k", shard: tuple[int, int] | None = None) -> Node:
    points = [Point.of(OmegaConf.create({}), label) for label in labels]
    return Node(key, name, "", {}, {}, {}, {}, {}, points, shard=shard)


def test_a_title_is_the_stage_the_words_that_its_points_share_and_its_shard() -> None:
    assert title(node("decode", "vas beta=4")) == "decode (vas beta=4)"
    assert title(node("decode", "vas beta=4", "vas beta=2")) == "decode (vas)"
    assert title(node("sft", "vas beta=4", "ivg")) == "sft"
    assert title(node("decode", "vas", shard=(1, 8))) == "decode (vas) 2/8"


def seen(total: int, *calls: tuple) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    with Terminal(console, total) as view:
        for name, *given in calls:
            getattr(view, name)(*given)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_in_a_file_each_event_is_a_line() -> None:
    one, other = node("first", "", key="1"), node("second", "", key="2")
    lines = seen(
        3,
        ("reused", node("zero", "", key="0")),
        ("started", one, 2),
        ("progressed", one, 1.0, 2.0, "half"),  # bars are for a terminal
        ("retried", one, "the line dropped", 2.0),
        ("started", one, 2),
        ("finished", one, {"letters": 5.0}, 1.25),
        ("started", other, 2),
        ("failed", other),
        ("skipped", node("third", "", key="3"), other),
    )
    assert lines == [
        "● zero  reused",
        "○ first  started",
        "↻ first  the line dropped; trying again in 2 s",
        "○ first  started",
        "✓ first  1.2 s · letters 5",
        "○ second  started",
        "✗ second  failed",
        "– third  skipped: second failed",
    ]


def test_of_many_reused_stages_only_the_number_is_told() -> None:
    calls = [("reused", node("say", "", key=str(number))) for number in range(FEW + 1)]
    assert seen(FEW + 1, *calls) == [f"● {FEW + 1} of {FEW + 1} stages  reused"]
    assert len(seen(FEW, *calls[:FEW])) == FEW
