"""The code part of a key: what is read, what counts, and that nothing is imported for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import code


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Modules written to a folder on the path; call it again to rewrite one and forget what was read."""

    def write(**modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        for cached in (code.module_file, code._tree, code.imports, code.definitions, code._of_targets):
            cached.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    return write


def hashes(target: str) -> dict[str, dict[str, str]]:
    return {module: dict(names) for module, names in code.code_of({"_target_": target}).items()}


def test_comments_docstrings_and_layout_do_not_count(project) -> None:
    project(mine="def f(x):\n    return x + 1\n")
    before = hashes("mine.f")
    project(mine='"""New."""\n\n# why\ndef f(x):\n    """Adds."""\n    return (x\n            + 1)\n')
    assert hashes("mine.f") == before


def test_a_change_is_told_by_its_definition(project) -> None:
    project(mine="LIMIT = 1\ndef f(x):\n    return x\ndef g(x):\n    return x\n")
    before = hashes("mine.f")["mine"]
    project(mine="LIMIT = 2\ndef f(x):\n    return x\ndef g(x):\n    return -x\n")
    after = hashes("mine.f")["mine"]
    assert {name for name in before if before[name] != after[name]} == {"", "g"}


def test_imports_are_followed_wherever_they_stand_and_libraries_are_not(project) -> None:
    project(
        mine="import numpy\ndef f():\n    from other import g\n    return g\n", other="import third\n", third="x = 1\n"
    )
    assert set(hashes("mine.f")) == {"mine", "other", "third"}


def test_a_template_beside_its_module_counts(project, tmp_path: Path) -> None:
    project(mine="def f(): pass\n")
    before = hashes("mine.f")["mine"]
    (tmp_path / "mine.html").write_text("<p>")
    project()
    assert hashes("mine.f")["mine"].keys() - before.keys() == {"mine.html"}


def test_a_folder_of_its_name_beside_a_module_does_not(project, tmp_path: Path) -> None:
    project(mine="def f(): pass\n")
    before = hashes("mine.f")
    (tmp_path / "mine.egg-info").mkdir()
    project()
    assert hashes("mine.f") == before


def test_nested_targets_count(project) -> None:
    project(mine="class A: pass\n", reward="class B: pass\n")
    config = {"_target_": "mine.A", "rewards": [{"_target_": "reward.B"}]}
    assert set(code.code_of(config)) == {"mine", "reward"}


def test_circular_imports_end(project) -> None:
    project(mine="import other\n", other="import mine\n")
    assert set(hashes("mine.x")) == {"mine", "other"}


def test_a_stage_is_hashed_without_importing_it() -> None:
    look = "import sys; from pipeline.code import code_of; code_of({'_target_': 'stages.decode.decode.Decode'}); "
    loaded = subprocess.run(
        [sys.executable, "-c", look + "print({'torch', 'transformers', 'stages'} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "set()"


def test_an_unknown_module_is_refused_by_name(project) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"nowhere\.Thing"):
        code.code_of({"_target_": "nowhere.Thing"})
