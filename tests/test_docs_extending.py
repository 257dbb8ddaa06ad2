"""docs/extending.md, done: the files of every section are written as they stand, its command is run on tiny settings,
and what came out is looked at."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.records import Generation, Prompt, Score, read

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
TILT = str(Path(sys.executable).with_name("tilt"))
QUESTIONS = [f"{who} of the {what} is" for who in ("the story", "the cast") for what in ("film", "sequel", "plot")]
TINY = [
    "task=csv",
    "task.file=prompts.csv",
    "task.prompt_column=question",
    "task.parts.train.size=12",
    "task.parts.validation.size=6",
    "task.parts.test.size=8",
    "rollouts.samples=4",
    "sampling.max_new_tokens=12",
    "sampling.top_p=1",
    "model=local",
    "model.path=my-model",
    "model.dtype=float32",
    "policy=as_is",
    "value.layer=2",
    "reward@proxy=lexicon",
    "reward@gold=lexicon",
]


def section(title: str) -> str:
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[1 + titles().index(title)]


def titles() -> list[str]:
    return re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)


def command(title: str) -> list[str]:
    (block,) = re.findall(r"^```bash\n(.*?)^```", section(title), flags=re.MULTILINE | re.DOTALL)
    return shlex.split(block, comments=True)[1:]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with every file of the page, a model and a table of prompts."""
    folder = tmp_path_factory.mktemp("extending")
    for name, text in re.findall(r"^`(my_[\w/.]+)`\n\n```\w+\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copytree(tiny_model, folder / "my-model")
    with (folder / "prompts.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["question"], *([f"{q} number {n}"] for q in QUESTIONS for n in range(8))])
    return folder


def tilt(folder: Path, words: list[str], *more: str, tiny: bool = True) -> str:
    """Runs `tilt`; where `tiny`, with those of the tiny settings whose key the words leave open. Returns what it
    printed."""
    given = {word.partition("=")[0] for word in words}
    small = [setting for setting in TINY if tiny and setting.partition("=")[0] not in given]
    small += [] if "--config-dir" in words else ["--config-dir", "my_conf"]
    done = subprocess.run(
        [TILT, *words, *small, *more],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def points(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of the last run's comparison by method and settings."""
    with (folder / "runs/latest/comparison.csv").open() as stream:
        return {f"{row['method']} {row['settings']}": row for row in csv.DictReader(stream)}


def payload(folder: Path, stage: str, point: str = "*") -> Path:
    (found,) = (folder / "runs/latest").glob(f"{point}/{stage}")
    return found


def test_every_file_of_the_page_is_used_by_its_own_section() -> None:
    names = re.findall(r"^`(my_[\w/.]+)`\n\n```", PAGE, flags=re.MULTILINE)
    assert len(names) == len(set(names))
    for title in titles():  # at most two files a part, and the tables and lists that they read
        written = re.findall(r"^`(my_[\w/.]+\.(?:py|yaml))`\n\n```", section(title), flags=re.MULTILINE)
        assert 1 <= len(written) <= 2


def test_a_guide(project: Path) -> None:
    tilt(project, command("A guide"))
    rows = points(project)
    (still,), (tilted,) = ([r for name, r in rows.items() if f'"beta": {b}' in name] for b in (0, 4))
    assert float(still["kl"]) == 0.0
    assert float(tilted["kl"]) > 0.1
    lengths = {
        place.name: sum(len(g.token_ids) for g in read(place / "decode/generations.parquet", Generation))
        for place in (project / "runs/latest").glob("*beta=*")
    }
    (plain,), (short,) = ([n for name, n in lengths.items() if name.endswith(f"beta={b}")] for b in (0, 4))
    assert short < 0.7 * plain


def test_a_guide_in_a_sum_and_its_refusal(project: Path) -> None:
    sys.path.insert(0, str(project))
    try:
        from my_guide import Ending  # type: ignore[import-not-found]  # written from the page
    finally:
        sys.path.remove(str(project))
    assert Ending(beta=2.0).scaled(3.0).beta == 6.0
    with pytest.raises(ValueError, match=r"guide\.beta: nan is not a finite number"):
        Ending(beta=float("nan")).check()


def test_a_scorer(project: Path) -> None:
    tilt(project, command("A scorer"))
    words = {
        name: [len(set(s.text.split())) for s in read(payload(project, "score", f"*{name}*") / "scores.parquet", Score)]
        for name in ("base", "varied")
    }
    assert sum(words["varied"]) > sum(words["base"])
    assert {name.split()[0] for name in points(project)} == {"base", "varied"}


def test_a_stage_whole_and_in_shards(project: Path) -> None:
    printed = tilt(project, command("A stage"))
    assert "responses by tokens: {" in printed
    whole = json.loads((payload(project, "lengths") / "lengths.json").read_text())
    assert sum(whole.values()) == 14  # responses to validation and test
    assert all(int(bin_) % 4 == 0 for bin_ in whole)
    tilt(project, ["force", "lengths", *command("A stage")[1:]])
    printed = tilt(project, command("A stage"), "+stages.lengths.resources.shards=2")
    assert printed.count("started") >= 3  # two shards and what merges them
    assert json.loads((payload(project, "lengths") / "lengths.json").read_text()) == whole


def test_a_stage_that_refuses_its_field(project: Path) -> None:
    with pytest.raises(AssertionError, match=r"stages\.lengths\.width: 0 is not a positive number of tokens"):
        tilt(project, command("A stage"), "stages.lengths.width=0")


def test_a_task(project: Path) -> None:
    tilt(project, command("A task"), tiny=False)
    prompts = read(payload(project, "prompts") / "prompts.parquet", Prompt)
    assert sorted(prompt.part for prompt in prompts) == ["test"] * 4 + ["train"] * 4 + ["validation"] * 2
    assert all(re.fullmatch(r"Question: .*\?\nAnswer:", prompt.text) for prompt in prompts)
    assert all(prompt.reference.endswith(".") for prompt in prompts)


def test_a_reward(project: Path) -> None:
    tilt(project, command("A reward"))
    rows = {name.split()[0]: row for name, row in points(project).items()}
    assert float(rows["bon"]["proxy"]) > float(rows["base"]["proxy"])
    assert "counts as free" not in (project / "runs/latest/report.html").read_text()
    words = project / "my_words.txt"
    text = words.read_text()
    words.write_text(f"{text} cast\n")
    planned = tilt(project, ["plan", *command("A reward")[1:]])
    words.write_text(text)
    assert "labels" not in planned  # neither method learns anything
    assert "my_words.txt" in planned or "words" in planned


def test_a_value_target(project: Path) -> None:
    tilt(project, command("A value target"), "goal=[value,compare]", "method.k=5")
    card = (payload(project, "value") / "README.md").read_text()
    assert "(huber)" in card
    (row,) = points(project).values()
    assert float(row["kl"]) > 0.0
    path = project / "my_target.py"
    text = path.read_text()
    path.write_text(text.replace('reduction="none")', 'reduction="none", delta=0.5)'))
    planned = tilt(project, ["plan", *command("A value target")[1:]], "method.k=5")
    path.write_text(text)
    assert "code: my_target.Huber" in planned


def test_the_protocols_stand_on_the_page_whole() -> None:
    import ast

    def members(file: str, *classes: str) -> set[str]:
        tree = ast.parse((ROOT / file).read_text())
        bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name in classes]
        assert len(bodies) == len(classes)
        named = [n for body in bodies for n in body if isinstance(n, ast.FunctionDef | ast.AnnAssign)]
        return {n.name if isinstance(n, ast.FunctionDef) else str(getattr(n.target, "id", "")) for n in named}

    expected = {
        "A guide": members("stages/decode/parts.py", "TokenGuide") | members("stages/engine/terms.py", "DenseTerm"),
        "A scorer": members("stages/decode/parts.py", "Scorer", "OpenScorer")
        | members("stages/engine/batch.py", "Watcher"),
        "A stage": members(
            "pipeline/protocol.py", "Stage", "Sharded", "Estimated", "Handles", "FieldAtFault", "Passing", "Ending"
        ),
        "A reward": members("stages/reward.py", "Reward", "Costed"),
        "A value target": members("stages/learn/values/targets.py", "Target", "Batch") - {"next_values"},
    }  # fmt: skip
    for title, names in expected.items():
        said = set(re.findall(r"\w+", section(title)))
        assert not names - said, (title, names - said)
