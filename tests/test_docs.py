"""Every command that README.md and docs/ show is planned, or its verb takes it; every link and path leads somewhere."""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_RESULTS = {"explain": "0 published objects have a key that begins with", "unpin": "nothing is pinned as"}
"""Verbs that look at results which a fresh folder does not have, and what they say to that."""

Main = Callable[[list[str]], int]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def lines(page: Path) -> list[list[str]]:
    """The words of every command of a page, those in the running text too; comments are left out."""
    shown = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    shown += re.findall(r"`(tilt [a-z][^`]*)`", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S))
    words = []
    for line in shown:
        within = re.search(r"\$\((tilt .*?)\)", line)
        words.append(shlex.split(within.group(1) if within else line, comments=True))
    return [line for line in words if line]


def commands(program: str) -> list[tuple[str, list[str]]]:
    """(page, words) of the commands of all pages that start with `program`, each once."""
    found = {shlex.join(line): (page.name, line) for page in PAGES for line in lines(page) if line[0] == program}
    return list(found.values())


@pytest.fixture(scope="module")
def main() -> Main:
    """What the console script `tilt` calls."""
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["tilt"]
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the pages call one's own: a model, tables, and every file that a page shows."""
    for page in PAGES:
        found = re.findall(r"^`(my_[\w/.]+)`\n\n```\w+\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for name, text in found:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    (tmp_path / "my-model").mkdir()
    (tmp_path / "prompts.csv").write_text("question\nwhy\n")
    (tmp_path / "one.yaml").write_text("blocks: [{method: [base, vas]}]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    GlobalHydra.instance().clear()
    return tmp_path


def told(command: tuple[str, list[str]]) -> str:
    return f"{command[0]}: {shlex.join(command[1])}"


@pytest.mark.parametrize("command", commands("tilt"), ids=told)
def test_every_command_is_planned_or_its_verb_takes_it(
    command: tuple[str, list[str]], main: Main, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (_, verb, *given) = command
    for place, word in enumerate(given):
        if word.startswith("sweep="):  # every sweep is planned by test_conf.py; here two points stand for it
            assert (ROOT / "sweeps" / f"{word.removeprefix('sweep=')}.yaml").exists() or Path(word[6:]).exists()
            given[place] = "sweep=one.yaml"
    if "--help" in given or verb == "-sc":
        given = []  # Hydra's own
        assert main(["-sc", "install=bash"] if verb == "-sc" else ["help"]) == 0
        return
    launcher = [word for word in given if word.startswith("hydra/launcher=")]
    if launcher:  # planned without it: it would start jobs
        code = main(["plan", "--cfg", "hydra", *launcher])
        assert (code, "submitit" in capsys.readouterr().out) == (0, True)
        given.remove(launcher[0])
    code = main(["plan" if verb in ("run", "resume") else verb, *given])
    said = capsys.readouterr()
    if any(word.startswith("hydra/sweeper=") for word in given):
        assert (code, "only tilt run takes it" in said.err) == (2, True)
    elif verb in NEEDS_RESULTS:
        assert (code, NEEDS_RESULTS[verb] in said.err) == (2, True)
    else:
        assert code == 0, said.out + said.err
    if verb in ("run", "plan") and code == 0:
        assert re.search(r"\d+ points, \d+ stages|paid answers|\d+ unique", said.out)


@pytest.mark.parametrize("command", commands("make"), ids=told)
def test_every_target_of_make_exists(command: tuple[str, list[str]]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert command[1][1] in targets


@pytest.mark.parametrize("command", commands("python"), ids=told)
def test_every_module_that_is_run_exists(command: tuple[str, list[str]]) -> None:
    assert command[1][1] == "-m"
    assert importlib.util.find_spec(command[1][2]) is not None


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_in_backticks_exists(page: Path) -> None:
    rooms = "conf|pipeline|stages|sweeps|tests|docs|hydra_plugins|tilt"
    for path in re.findall(rf"`((?:{rooms})/[\w/.]*)`", page.read_text()):
        assert list(ROOT.glob(path.rstrip("/"))), path
