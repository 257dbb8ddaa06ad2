"""`make bench`: measures what the project promises of its speed, prints it, and writes runs/bench/latest.json.

    make bench                      all of tests/bench
    make bench ARGS="runner"        one module of it; the other rows stay as they were

Each module has `rows()`, which yields rows {name, value, unit, bar, holds}; `bar` is what is promised (None: nothing,
the figure stands for itself), `holds` whether it is kept. Figures are medians of several runs in one process, and
ratios wherever that says more: a machine's own speed cancels out.
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
LATEST = Path("runs/bench/latest.json")
Row = dict[str, Any]


def modules(names: list[str]) -> Iterator[Any]:
    known = sorted(path.stem for path in HERE.glob("*.py") if path != Path(__file__))
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"bench: there is no '{unknown[0]}' ({', '.join(known)})")
    sys.path.insert(0, str(HERE))
    for name in names or known:
        spec = importlib.util.spec_from_file_location(f"bench_{name}", HERE / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        if hasattr(module, "rows"):
            yield module


def shown(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column, side in (("", "left"), ("what", "left"), ("value", "right"), ("unit", "left"), ("promised", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for row in rows:
        mark = "" if row["bar"] is None else "✓" if row["holds"] else "✗"
        table.add_row(mark, row["name"], f"{row['value']:.4g}", row["unit"], str(row["bar"] or ""))
    return table


def main(names: list[str]) -> int:
    """0 where every promise holds, 1 where one does not."""
    console, fresh = Console(), []
    for module in modules(names):
        for row in module.rows():
            fresh.append(row)
            console.print(f"  {row['name']}: {row['value']:.4g} {row['unit']}", soft_wrap=True)
    kept = json.loads(LATEST.read_text()) if LATEST.exists() else []
    rows = [row for row in kept if row["name"] not in {new["name"] for new in fresh}] + fresh
    LATEST.parent.mkdir(parents=True, exist_ok=True)
    LATEST.write_text(json.dumps(rows, indent=1) + "\n")
    console.print()
    console.print(shown(fresh))
    return 0 if all(row["holds"] for row in fresh if row["bar"] is not None) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
