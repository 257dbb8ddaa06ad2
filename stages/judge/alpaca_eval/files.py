"""The two JSON files of AlpacaEval, read and written as they are.

    model_outputs.json   [{instruction, output, generator, dataset}, …]
    annotations.json     [{instruction, output_1, output_2, generator_1, generator_2, preference}, …]

In annotations output_1 is the reference, output_2 the candidate, and preference is 1 (the reference is preferred) … 2,
null where the judge gave none. The order that the judge saw is already undone in it. Other keys are ignored.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.errors import BadInput


@dataclass(frozen=True)
class ModelOutput:
    """One row of model_outputs.json."""

    instruction: str
    output: str
    generator: str
    dataset: str


@dataclass(frozen=True)
class Annotation:
    """One row of annotations.json."""

    instruction: str
    output_1: str
    output_2: str
    generator_1: str
    """The reference."""
    generator_2: str
    """The candidate."""
    preference: float | None
    """1…2, 2 = output_2 is preferred; None: the judge gave none."""


def write_outputs(path: Path, outputs: Iterable[ModelOutput]) -> None:
    """Writes model_outputs.json."""
    _write(path, [asdict(output) for output in outputs])


def read_outputs(path: Path) -> list[ModelOutput]:
    """Reads model_outputs.json; a missing `dataset` is empty. Raises BadInput for what is not such a file, for
    instructions that stand in it twice and for several generators."""
    outputs = [
        ModelOutput(
            _text(row, "instruction", number),
            _text(row, "output", number),
            _text(row, "generator", number),
            str(row.get("dataset") or ""),
        )
        for number, row in enumerate(_read(path))
    ]
    refuse("outputs", repeated(outputs), "more than once")
    if len(generators := sorted({output.generator for output in outputs})) > 1:
        named = ", ".join(generators[:3])
        raise BadInput("outputs", f"{len(generators)} generators ({named}); one file holds one model")
    return outputs


def write_annotations(path: Path, annotations: Iterable[Annotation]) -> None:
    """Writes annotations.json."""
    _write(path, [asdict(annotation) for annotation in annotations])


def read_annotations(path: Path, candidate: str | None = None) -> list[Annotation]:
    """Reads annotations.json. Rows in which `candidate` is generator_1 are turned round (preference → 3 − preference).

    A preference of 0 is a draw (AlpacaEval 1), null or nan is None. Raises BadInput for what is not such a file, for
    instructions that stand in it twice, and rows without `candidate`.
    """
    annotations = []
    for number, row in enumerate(_read(path)):
        one, two = _text(row, "generator_1", number), _text(row, "generator_2", number)
        outputs = _text(row, "output_1", number), _text(row, "output_2", number)
        preference = _preference(row, number)
        if candidate is not None and candidate not in (one, two):
            raise BadInput("candidate", f"row {number} compares {one!r} with {two!r}, not {candidate!r}")
        if candidate == one != two:
            one, two, outputs = two, one, outputs[::-1]
            preference = None if preference is None else 3 - preference
        annotations.append(Annotation(_text(row, "instruction", number), outputs[0], outputs[1], one, two, preference))
    refuse("annotations", repeated(annotations), "more than once")
    return annotations


def _preference(row: Mapping[str, Any], number: int) -> float | None:
    if "preference" not in row:
        raise BadInput("annotations", f"row {number} has no 'preference'")
    value = row["preference"]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2):
        raise BadInput("annotations", f"row {number}: preference {value!r} is not in 1…2")
    return 1.5 if value == 0 else float(value)


def repeated(rows: Iterable[ModelOutput] | Iterable[Annotation]) -> list[str]:
    """Instructions that stand in several rows."""
    return [text for text, count in Counter(row.instruction for row in rows).items() if count > 1]


def refuse(field: str, offenders: Iterable[str], what: str) -> None:
    """Raises BadInput, which counts the offenders and quotes the first three, unless there is none."""
    found = list(dict.fromkeys(offenders))
    if found:
        named = ", ".join(repr(text if len(text) <= 60 else text[:57] + "...") for text in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise BadInput(field, f"{len(found)} {what}: {named}{more}")


def _text(row: Mapping[str, Any], key: str, number: int) -> str:
    if not isinstance(row.get(key), str):
        raise BadInput("file", f"row {number}: {key!r} is {'missing' if key not in row else 'not text'}")
    return row[key]


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput("file", f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput("file", f"{path} is not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput("file", f"{path} is not a list of records")
    return rows


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
