"""What the README tells a newcomer to do, done: their own model folder, table and rewards, from base to comparison."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
QUESTIONS = [
    f"{who} of the {what} is" for who in ("the story", "the cast") for what in ("film", "sequel", "plot", "city")
]


def own_files(folder: Path) -> None:
    """Writes the README's files: every fenced block that follows a line with nothing but a file's name."""
    for name, text in re.findall(r"^`(my_[\w/.]+)`\n\n```\w+\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def own_command() -> list[str]:
    block = next(block for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL) if "my_conf" in block)
    return shlex.split(block.replace("\\\n", " "))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("own")
    own_files(folder)
    shutil.copytree(tiny_model, folder / "my-model")
    with (folder / "prompts.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["question"])
        writer.writerows([f"{question} number {n}"] for question in QUESTIONS for n in range(8))
    return folder


SMALL = [
    "task.parts.train.size=16",
    "task.parts.validation.size=8",
    "task.parts.test.size=8",
    "rollouts.samples=4",
    "sampling.max_new_tokens=8",
    "method.k=5",
    "model.dtype=float32",
]


def tilt(folder: Path, command: list[str], *last: str) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name("tilt"))
    small = [s for s in SMALL if "method.k" not in s or "method=vas" in command]
    return subprocess.run(
        [program, *command[1:], *small, *last],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def ran(project: Path) -> Path:
    """The project after the worked example ran in it once."""
    done = tilt(project, own_command())
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_it_is_read_in_two_minutes_and_its_map_has_every_room() -> None:
    assert len(README.split()) < 900
    rooms = [path.parent for top in ("", "stages/") for path in ROOT.glob(f"{top}*/__init__.py")]
    rooms = [room.relative_to(ROOT) for room in rooms if room.name != "stages"] + [Path("hydra_plugins"), Path("tests")]
    the_map = README[README.index("## The map") :]
    assert [str(room) for room in rooms if f"| `{room}/` |" not in the_map] == []


def test_the_worked_example_ends_in_a_comparison(ran: Path) -> None:
    project = ran
    with (project / "runs/latest/comparison.csv").open() as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"base", "bon", "vas"}
    expected = "method,settings,prompts,samples,proxy,proxy_low,proxy_high,gold,gold_low,gold_high,kl,kl_low,kl_high,"
    expected += "tokens_per_second,flops,seconds,kl_kind,tokens,train_flops,train_tokens,rollout_flops,rollout_tokens"
    assert ",".join(rows["vas"]) == expected
    assert {method: float(row["train_flops"]) > 0 for method, row in rows.items()} == {
        "base": False, "bon": False, "vas": True,
    }  # fmt: skip
    assert float(rows["base"]["kl"]) == 0.0
    assert float(rows["vas"]["kl"]) > 0.0
    assert float(rows["bon"]["proxy"]) > float(rows["base"]["proxy"])  # the best of 16 by this very reward
    page = (project / "runs/latest/report.html").read_text()
    assert "<html" in page
    assert "Brevity does not say what scoring takes and counts as free for bon." in page


def test_the_second_time_nothing_runs(ran: Path) -> None:
    again = tilt(ran, own_command())
    assert again.returncode == 0
    assert "started" not in again.stdout


def test_an_edited_reward_is_noticed(ran: Path) -> None:
    project = ran
    reward = project / "my_reward.py"
    text = reward.read_text()
    reward.write_text(text.replace("-len(r)", "-2 * len(r)"))
    planned = tilt(project, ["tilt", "plan", *own_command()[2:]])
    reward.write_text(text)
    assert "code: my_reward.Brevity" in planned.stdout


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("method.k=100000", "method.k: 100000 candidates, but the vocabulary has"),
        ("sampling.max_new_tokens=300", "the model's context holds 256"),
        ("value.layer=9", "value.layer: "),
    ],
)
def test_what_only_the_model_can_refuse_names_the_key(project: Path, override: str, line: str) -> None:
    command = [word for word in own_command() if word not in ("-m", "method=base,bon,vas")]
    done = tilt(project, [*command, "method=vas"], override)
    assert done.returncode == 2, done.stdout + done.stderr
    assert line in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_model_folder_without_a_tokenizer_is_refused(project: Path) -> None:
    bare = project / "bare"
    shutil.copytree(project / "my-model", bare, ignore=shutil.ignore_patterns("tokenizer*"))
    command = [word.replace("my-model", "bare") for word in own_command()]
    done = tilt(project, command)
    assert done.returncode == 2
    assert "model.path: " in done.stdout
    assert "has no tokenizer" in done.stdout


def test_a_judge_adds_a_column_to_the_comparison_and_decodes_nothing_again(ran: Path) -> None:
    project = ran
    judged = tilt(project, own_command(), "judge=reward")
    assert judged.returncode == 0, judged.stdout + judged.stderr
    started = [line.split()[1] for line in judged.stdout.splitlines() if line.endswith("started")]
    # π₀'s own responses are those of method=base: the reference is decoded once, and judged like the others.
    assert sorted(started) == ["compare", "judge", "judge", "judge"]
    assert "judge reward, every point against base" in judged.stdout
    with (project / "runs/latest/comparison.csv").open() as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream)}
    assert float(rows["base"]["win_rate"]) == 50.0  # the same responses
    for row in rows.values():
        assert float(row["win_rate_low"]) <= float(row["win_rate"]) <= float(row["win_rate_high"])
        assert (row["verdicts"], row["failed"]) == ("8", "0")  # 8 test prompts, none of validation
    command = [word for word in own_command() if word not in ("-m", "method=base,bon,vas")]
    alone = tilt(project, [*command, "method=bon", "judge=reward", "goal=[judge]"])
    assert alone.returncode == 0, alone.stdout + alone.stderr
    (payload,) = re.findall(r"^judge.*: (/\S+)$", alone.stdout, flags=re.MULTILINE)
    assert {"verdicts.parquet", "summary.json"} <= {path.name for path in Path(payload).iterdir()}
