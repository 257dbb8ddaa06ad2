"""The code part of a key: a hash of the source of every first-party module that a stage reaches by imports.

It is made of the syntax trees, so comments, docstrings and formatting do not count. Modules are read, never imported:
planning needs neither torch nor a GPU.
"""

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def targets(config: Any) -> list[str]:
    """Every `_target_` in a configuration, in order of appearance."""
    if isinstance(config, Mapping):
        own = [config["_target_"]] if isinstance(config.get("_target_"), str) else []
        return own + [t for key, value in config.items() if key != "runtime" for t in targets(value)]
    if isinstance(config, list | tuple):
        return [t for value in config for t in targets(value)]
    return []


@cache
def module_file(module: str) -> Path | None:
    """Source file of a module, None where there is none (built in, or not installed). Imports nothing."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # of a top-level name: of a deeper one it would import the parents
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder).joinpath(*rest)
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None


def module_of(target: str) -> str:
    """The module that holds `package.module.Class`. Raises ModuleNotFoundError where there is none."""
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if module_file(name := ".".join(parts[:end])):
            return name
    raise ModuleNotFoundError(f"{target}: no module of that name can be found")


def _first_party(module: str, roots: frozenset[str]) -> bool:
    if module.split(".")[0] in roots:
        return True
    file = module_file(module)
    return file is not None and not str(file).startswith(_LIBRARIES)


@cache
def _tree(module: str) -> ast.Module:
    _stamp(module)  # taken before the source is read, so that every later change is seen
    file = module_file(module)
    return ast.parse(file.read_bytes() if file else b"")


@cache
def imports(module: str) -> frozenset[str]:
    """Modules that a module names in import statements, wherever they stand."""
    file = module_file(module)
    package = module if file and file.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module) if part)
            found.add(name)
            found.update(f"{name}.{alias.name}" for alias in node.names)  # a submodule, where there is one
    return frozenset(name for name in found if module_file(name))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # a string that stands alone documents what is above it; without it the code does the same
            node.body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return tree


@cache
def definitions(module: str) -> Mapping[str, str]:
    """Hash of every top-level definition of a module by name; `""` holds what stands outside of them.

    A file of the module's own name beside it (`report.html` beside `report.py`) counts with it, by its bytes.
    """
    return _definitions(_tree(module), module_file(module))


def _definitions(tree: ast.Module, file: Path | None) -> Mapping[str, str]:
    tree = _without_docstrings(tree)
    parts: dict[str, list[str]] = {}
    for node in tree.body:
        name = node.name if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else ""
        parts.setdefault(name, []).append(ast.dump(node))
    found = {name: hashlib.sha256("\n".join(dumps).encode()).hexdigest()[:16] for name, dumps in parts.items()}
    if file:
        for twin in sorted(file.parent.glob(f"{file.stem}.*")):
            if twin.suffix != ".py" and twin.is_file():
                found[twin.name] = hashlib.sha256(twin.read_bytes()).hexdigest()[:16]
    return found


def closure(modules: Iterable[str]) -> list[str]:
    """The modules and all first-party modules that they import, directly or not, sorted."""
    start = list(modules)
    roots = frozenset(module.split(".")[0] for module in start)
    seen: set[str] = set()
    while start:
        module = start.pop()
        if module not in seen:
            seen.add(module)
            start += [name for name in imports(module) if _first_party(name, roots)]
    return sorted(seen)


@cache
def _of_targets(names: tuple[str, ...]) -> Mapping[str, Mapping[str, str]]:
    return {module: definitions(module) for module in closure(module_of(target) for target in names)}


def code_of(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    """{module: {definition: hash}} of all first-party code that a stage's configuration reaches."""
    return _of_targets(tuple(sorted(set(targets(config)))))


Stamps = Mapping[str, tuple[str, int, int]]
"""{module: (source file, its time of change in ns, its size)}."""


def stamps(code: Mapping[str, Any]) -> Stamps:
    """The stamps of a stage's modules as they were read for its key."""
    return {module: stamp for module in code if (stamp := _stamp(module))}


@cache
def _stamp(module: str) -> tuple[str, int, int] | None:
    file = module_file(module)
    return _stamped(file) if file else None


def _stamped(file: Path) -> tuple[str, int, int]:
    seen = file.stat()
    return str(file), seen.st_mtime_ns, seen.st_size


def changed_since(code: Mapping[str, Mapping[str, str]], stamped: Stamps) -> list[str]:
    """Modules whose source has changed since the key was made. A file is only read where its stamp differs."""
    found = []
    for module, (path, *seen) in stamped.items():
        file = Path(path)
        try:
            if list(_stamped(file)[1:]) == seen or _definitions(ast.parse(file.read_bytes()), file) == code[module]:
                continue
        except (OSError, SyntaxError):
            pass
        found.append(module)
    return found


@cache
def declares(target: str, name: str) -> bool:
    """Whether a class has a method of that name in its own body, found without importing it."""
    module = module_of(target)
    kind = target.removeprefix(f"{module}.")
    classes = [node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == kind]
    return any(isinstance(part, ast.FunctionDef) and part.name == name for node in classes for part in node.body)
