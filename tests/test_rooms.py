"""The rooms import each other as designed, their modules stay small, and no device is named in their code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {"pipeline": {"conf", "hydra_plugins"}, "stages": set(), "sweeps": {"stages"}, "conf": set()}
ROOMS = {"pipeline", "stages", "sweeps", "conf", "hydra_plugins"}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_what_the_map_allows(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {module.split(".")[0] for module in modules}:
                assert top not in ROOMS - ALLOWED[room] - {room}, f"{path.relative_to(ROOT)} imports {top}"


def test_modules_stay_small_and_rooms_have_names() -> None:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
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
