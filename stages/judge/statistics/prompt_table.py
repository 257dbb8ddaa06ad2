"""Verdicts on one candidate, joined with the lengths and difficulties that the length control reads.

They are joined by instruction, never by position.

AlpacaEval's own code gives the i-th row of a file the difficulty of the i-th instruction; where a row is missing, every
row after it gets another instruction's (for its published phi-2: 0.5 points of length-controlled win rate).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import BadInput

_NAMED = 3
"""Instructions that an error quotes."""


@dataclass(frozen=True)
class PromptTable:
    """One candidate's verdicts with what the length control reads beside them: a row for each of n prompts, sorted by
    instruction. All arrays are (n,)."""

    instructions: tuple[str, ...]
    preference: np.ndarray
    """1 (the reference is preferred) … 2 (the candidate is)."""
    len_model: np.ndarray
    """Characters of the candidate's output."""
    len_reference: np.ndarray
    """Characters of the reference output."""
    difficulty: np.ndarray

    def restricted(self, instructions: Iterable[str]) -> "PromptTable":
        """Only the rows of these instructions. Raises BadInput where one is not among them."""
        wanted = set(instructions)
        if missing := wanted - set(self.instructions):
            raise BadInput("instructions", f"{_quoted(missing)} not judged")
        keep = np.array([instruction in wanted for instruction in self.instructions], dtype=bool)
        return PromptTable(
            tuple(instruction for instruction in self.instructions if instruction in wanted),
            self.preference[keep],
            self.len_model[keep],
            self.len_reference[keep],
            self.difficulty[keep],
        )


def join(
    verdicts: Sequence[Mapping[str, Any]], items: Sequence[Mapping[str, Any]], *, complete: bool = False
) -> PromptTable:
    """Joins verdicts {instruction, preference, len_model} with items {instruction, len_reference, difficulty}.

    Further columns are ignored; numbers may be text. Every verdict needs its item; an item without a verdict is
    fine unless `complete`. Raises BadInput, which quotes the instructions, for duplicates on either side, verdicts on
    unknown instructions and (`complete`) items without a verdict.
    """
    by_verdict, by_item = _keyed(verdicts, "verdicts"), _keyed(items, "items")
    if unknown := set(by_verdict) - set(by_item):
        raise BadInput("verdicts", f"{_quoted(unknown)} not among the {len(by_item)} items; both need the same prompts")
    if complete and (missing := set(by_item) - set(by_verdict)):
        raise BadInput("verdicts", f"{_quoted(missing)} without a verdict, of {len(by_item)} items")
    instructions = tuple(sorted(by_verdict))
    if not instructions:
        raise BadInput("verdicts", "there is none")
    rows = [by_verdict[instruction] for instruction in instructions]
    joined = [by_item[instruction] for instruction in instructions]
    return PromptTable(
        instructions,
        _numbers(rows, "preference", "verdicts"),
        _numbers(rows, "len_model", "verdicts"),
        _numbers(joined, "len_reference", "items"),
        _numbers(joined, "difficulty", "items"),
    )


def check_same_prompts(ours: PromptTable, theirs: PromptTable) -> None:
    """Raises BadInput, quoting the instructions, unless both were judged on the same prompts."""
    first, second = set(ours.instructions), set(theirs.instructions)
    problems = []
    if first - second:
        problems.append(f"{_quoted(first - second)} judged for the first only")
    if second - first:
        problems.append(f"{_quoted(second - first)} judged for the second only")
    if problems:
        raise BadInput("theirs", "; ".join(problems) + "; compare on the shared prompts with `restricted`")


def _keyed(rows: Sequence[Mapping[str, Any]], field: str) -> dict[str, Mapping[str, Any]]:
    for number, row in enumerate(rows):
        if not isinstance(row.get("instruction"), str):
            raise BadInput(field, f"row {number} has no instruction")
    counts = Counter(row["instruction"] for row in rows)
    if repeated := [instruction for instruction, count in counts.items() if count > 1]:
        raise BadInput(field, f"{_quoted(repeated)} more than once")
    return {row["instruction"]: row for row in rows}


def _numbers(rows: Sequence[Mapping[str, Any]], column: str, field: str) -> np.ndarray:
    values = []
    for row in rows:
        try:
            values.append(float(row[column]))
        except KeyError:
            raise BadInput(field, f"{_quoted([row['instruction']])} without {column!r}") from None
        except (TypeError, ValueError):
            raise BadInput(
                field, f"{_quoted([row['instruction']])} with {column} = {row[column]!r}, not a number"
            ) from None
    return np.array(values)


def _quoted(instructions: Iterable[str]) -> str:
    ordered = sorted(instructions)
    named = ", ".join(repr(text if len(text) <= 60 else text[:57] + "...") for text in ordered[:_NAMED])
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return f"{len(ordered)} instruction{'s' if len(ordered) > 1 else ''} ({named}{more})"
