"""The settings of a trained reward model, in a file beside its weights that says which kind of model a folder holds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.errors import BadInput


def write_settings(out: Path, kind: str, settings: Mapping[str, Any]) -> None:
    """Writes `<kind>.json`."""
    (Path(out) / f"{kind}.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_settings(folder: Path, kind: str) -> dict[str, Any]:
    """What `write_settings` wrote. Raises BadInput where the folder holds no model of this kind."""
    path = Path(folder) / f"{kind}.json"
    if not path.is_file():
        raise BadInput("folder", f"{folder} holds no {kind}.json; train it with stage `{kind}`")
    return json.loads(path.read_text(encoding="utf-8"))
