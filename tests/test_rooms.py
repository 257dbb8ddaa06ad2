"""Who may import whom. Every import counts: inside functions and under TYPE_CHECKING too."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = ("tilt", "hydra_plugins", "conf", "pipeline", "sweeps", "stages")
GROUND = ("asked", "errors", "fields", "payloads", "records", "reward", "runtime", "shards", "training_cost")
"""Modules of `stages` that all of its rooms share. They are the room `records`."""
STAGES = ("sample", "label", "score")
"""Stages that are one module each and belong to no room: a room of that name each."""
ALLOWED = {
    "records": set(),
    "statistics": {"records"},
    "servers": {"records"},
    "engine": {"servers", "records"},
    "data": {"engine", "records"},
    "sample": {"engine", "records"},
    "label": {"engine", "records"},
    "score": {"engine", "statistics", "records"},
    "learn": {"engine", "statistics", "servers", "records"},
    "decode": {"learn", "engine", "servers", "records"},
    "judge": {"servers", "statistics", "records"},
    "sweeps": {"decode", "learn", "engine", "data", "judge", "statistics", "servers", "records", *STAGES},
    "pipeline": set(),
    "conf": set(),
    "hydra_plugins": {"pipeline"},
    "tilt": {"pipeline", "conf", "hydra_plugins"},
}
"""By room, the rooms that it may import besides itself."""


def modules() -> dict[str, Path]:
    """All modules of ours by name; a package goes by its own."""
    found = {}
    for top in TOP:
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def named(source: str, package: str) -> Iterator[tuple[str, list[str]]]:
    """(module, names taken from it) of every import statement in a source text of that package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*above, *filter(None, [node.module])]), [alias.name for alias in node.names]


def imported(source: str, package: str, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a source text imports. A package counts where something of its own is taken from it."""
    found = set()
    for module, names in named(source, package):
        below = {f"{module}.{name}" for name in names} & known.keys()
        found |= below
        if module in known and (len(below) < len(names) or not names):
            found.add(module)
    return found


@cache
def edges() -> dict[str, set[str]]:
    known = modules()
    return {
        name: imported(path.read_text(), name if path.name == "__init__.py" else name.rpartition(".")[0], known)
        for name, path in known.items()
    }


def room(module: str) -> str:
    top, *rest = module.split(".")
    if top != "stages" or not rest:
        return top
    return "records" if rest[0] in GROUND else rest[0]


def test_imports_are_found_wherever_they_stand() -> None:
    known = dict.fromkeys(["a", "a.b", "a.c", "a.d.e", "f"], Path())
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.b import X\ndef f():\n    import a.d.e\n"
    assert imported(source, "a", known) == {"a.b", "a.d.e"}
    assert imported("from a import b, c\n", "f", known) == {"a.b", "a.c"}
    assert imported("from a import b, something\n", "f", known) == {"a", "a.b"}
    assert imported("from . import c\nfrom .b import X\n", "a", known) == {"a.c", "a.b"}
    assert imported("from ..b import X\nimport torch\n", "a.d", known) == {"a.b"}


def test_no_import_runs_in_a_circle() -> None:
    try:
        TopologicalSorter(edges()).prepare()
    except CycleError as error:
        # graphlib lists a circle so that each module is imported by the next
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("importing", sorted(ALLOWED))
def test_a_room_imports_only_rooms_below_it(importing: str) -> None:
    found = edges()
    assert any(room(module) == importing for module in found), f"there is no room {importing}"
    wrong = [
        f"{module} imports {other}"
        for module, others in sorted(found.items())
        if room(module) == importing
        for other in sorted(others)
        if room(other) not in ALLOWED[importing] | {importing}
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_is_in_a_room_of_the_map() -> None:
    packages = {"stages"}
    assert {module for module in modules() if room(module) not in ALLOWED} - packages == set()


def test_modules_and_tests_stay_small_and_their_names_say_something() -> None:
    for path in [*modules().values(), *(ROOT / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path
        assert not re.fullmatch(r"(utils?|helpers?|common|misc)", path.stem), path


def test_no_device_is_named_outside_of_conf() -> None:
    for path in [*(ROOT / "stages").rglob("*.py"), *(ROOT / "sweeps").rglob("*.py")]:
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names_one = re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", node.value)
                line = lines[node.lineno - 1].strip()
                assert not names_one or 'device: str = "cpu"' in line, f"{path.relative_to(ROOT)}:{node.lineno}: {line}"
