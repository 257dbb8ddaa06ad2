"""Prompts and labelled texts, in disjoint parts, from one table of raw data.

Reads a table (CSV, TSV, JSON, JSON lines or Parquet; CSV, TSV and JSON also compressed with bz2, gzip or xz); writes
`prompts.parquet` (records.Prompt) and `examples.parquet` (records.Example). Alone: `tilt run goal=[prompts]`.

Two kinds of table:

    text_column     a corpus. The first words of a text are the prompt's opening, the rest is its reference:
                    "A quiet wonder from start to finish." → "Movie review: A quiet wonder" + " from start to finish."
    prompt_column   prompts as they stand, with references where `reference_column` names them.

The parts share no group (all reviews of a film lie in one part), no text, and no prompt.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages import records
from stages.data.raw_table import clean, find_table, read_table, text_of
from stages.errors import BadInput
from stages.records import Example, Prompt
from stages.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Part:
    """One disjoint share of the data."""

    size: int
    """Rows wanted."""
    groups: float
    """Share of all groups (films, …) that belong to this part, in (0, 1]."""


@dataclass(frozen=True)
class _Row:
    group: str
    prompt: str
    opening: str
    reference: str
    text: str
    label: float | None
    order: str
    """Hash of seed and contents: a random order that does not depend on where the row stood."""


@dataclass
class Prompts:
    """Splits a table by group and makes prompts and examples of it; deterministic, whatever the order of the rows.

    Raises BadInput for a table that cannot be read, a column or label that it does not have, and a part that comes
    out smaller than its size.
    """

    table: Path
    """The file, or a folder that holds exactly one."""
    parts: dict[str, Any]
    """Name → `{size, groups}` (see `Part`). Groups are dealt out at random; the shares add up to 1 at most."""
    text_column: str = ""
    prompt_column: str = ""
    reference_column: str = ""
    label_column: str = ""
    """A label for each text; without one no examples are written."""
    positive: str = ""
    """The label that counts as 1.0; empty: labels are numbers already."""
    negative: str = ""
    """The label that counts as 0.0, rows with a third label are left out; empty: every label but `positive` is 0.0."""
    group_column: str = ""
    """Rows with the same value stay in one part; empty: every text is its own group."""
    template: str = "{text}"
    """`{text}` stands for the opening or the prompt; a blank at the end is dropped."""
    opening_words: list[int] = field(default_factory=lambda: [3, 4])
    """Corpus only: fewest and most words of an opening; the number is drawn for each text."""
    min_words: int = 0
    """Shorter texts are left out (corpus: also those that have nothing after the opening)."""
    max_words: int = 0
    """Longer texts are left out; 0: no limit."""
    any_of: list[str] = field(default_factory=list)
    """Corpus only: a text must hold one of these words (a cheap filter for its language); empty: no filter."""
    chat: bool = False
    """`prompt_column` only: prompts are user messages, and the model's own chat template is applied."""
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        parts = self._checked_parts()
        self.runtime.progress(0, 3, "reading")
        raw = read_table(find_table(Path(self.table).expanduser(), "table"), "table")
        self._check_columns(raw)
        self.runtime.progress(1, 3, f"{len(raw)} rows")
        rows, dropped = self._rows(raw)
        self.runtime.progress(2, 3, f"splitting {len(rows)} rows")
        chosen = self._split(rows, parts)
        prompts, examples = [], []
        for part in parts:
            for row in chosen[part]:
                prompts.append(self._prompt(part, row))
                if row.label is not None:
                    asked = "" if self.text_column else row.prompt
                    key = _digest(row.prompt, row.text)[:12]
                    examples.append(
                        Example(id=f"{part}-{key}", part=part, prompt=asked, text=row.text, label=row.label)
                    )
        records.write(out / "prompts.parquet", Prompt, _first_by_id(prompts))
        records.write(out / "examples.parquet", Example, examples)
        self.runtime.progress(3, 3, f"{len(prompts)} rows in {len(parts)} parts")
        counts = {f"rows/{part}": len(chosen[part]) for part in parts}
        groups = {f"groups/{part}": len({row.group for row in chosen[part]}) for part in parts}
        self.runtime.metrics({"rows": len(raw), "left_out": dropped, **counts, **groups})

    def _checked_parts(self) -> dict[str, Part]:
        if bool(self.text_column) == bool(self.prompt_column):
            raise BadInput("text_column", "name either text_column (a corpus) or prompt_column (prompts), not both")
        if self.chat and self.text_column:
            raise BadInput("chat", "chat messages need prompt_column: the opening of a text is not a question")
        if "{text}" not in self.template:
            raise BadInput("template", f"{self.template!r} has no {{text}} to put the prompt in")
        if len(self.opening_words) != 2 or not 1 <= self.opening_words[0] <= self.opening_words[1]:
            raise BadInput("opening_words", f"{list(self.opening_words)} is not [fewest, most] with 1 ≤ fewest ≤ most")
        if not self.parts:
            raise BadInput("parts", "no part is named; e.g. {test: {size: 64, groups: 0.5}}")
        parts = {}
        for name, given in self.parts.items():
            if isinstance(given, Part):
                parts[name] = given
                continue
            if not isinstance(given, Mapping) or set(given) != {"size", "groups"}:
                raise BadInput(f"parts.{name}", f"{given!r} is not {{size: rows, groups: share of the groups}}")
            parts[name] = Part(size=int(given["size"]), groups=float(given["groups"]))
        for name, part in parts.items():
            if part.size < 1:
                raise BadInput(f"parts.{name}.size", f"{part.size} is not a positive number of rows")
            if not 0 < part.groups <= 1:
                raise BadInput(f"parts.{name}.groups", f"{part.groups} is not a share of the groups in (0, 1]")
        if (total := sum(part.groups for part in parts.values())) > 1 + 1e-9:
            raise BadInput("parts", f"the parts ask for {total:.3f} of the groups; disjoint shares add up to 1 at most")
        return parts

    def _check_columns(self, raw: list[dict[str, Any]]) -> None:
        if not raw:
            raise BadInput("table", f"{self.table} has no rows")
        columns = sorted({column for row in raw for column in row})
        for name in ("text_column", "prompt_column", "reference_column", "label_column", "group_column"):
            column = getattr(self, name)
            if column and column not in columns:
                raise BadInput(
                    name, f"{column!r} is not a column of the table ({', '.join(columns)}){_nearest(column, columns)}"
                )
        if not self.label_column:
            return
        labels = sorted({text_of(row.get(self.label_column)) for row in raw})
        for name in ("positive", "negative"):
            label = getattr(self, name)
            if label and label not in labels:
                shown = ", ".join(labels[:8]) + (" …" if len(labels) > 8 else "")
                raise BadInput(
                    name, f"{label!r} is not a label in column {self.label_column!r} ({shown}){_nearest(label, labels)}"
                )

    def _rows(self, raw: list[dict[str, Any]]) -> tuple[list[_Row], int]:
        """Cleaned rows without duplicates, in the random order of their hashes, and how many were left out."""
        rows: list[_Row] = []
        for number, values in enumerate(raw):
            label: float | None = None
            if self.label_column:
                given = text_of(values.get(self.label_column))
                if self.positive:
                    if self.negative and given not in (self.positive, self.negative):
                        continue
                    label = 1.0 if given == self.positive else 0.0
                else:
                    label = self._number(given, number)
            row = self._corpus_row(values, label) if self.text_column else self._prompt_row(values, label)
            if row is not None:
                rows.append(row)
        rows.sort(key=lambda row: (row.order, row.group, row.label or 0.0))
        seen: set[str] = set()
        kept = []
        for row in rows:
            same = re.sub(r"\W+", " ", f"{row.prompt if self.prompt_column else ''}\n{row.text}".casefold()).strip()
            if same not in seen:
                seen.add(same)
                kept.append(row)
        return kept, len(raw) - len(kept)

    def _number(self, given: str, number: int) -> float:
        try:
            value = float(given)
        except ValueError:
            value = float("nan")
        if not abs(value) < float("inf"):
            raise BadInput(
                "label_column",
                f"row {number + 1} has {given!r} in {self.label_column!r}, which is no number; "
                "name the label that counts as 1.0 in `positive`",
            )
        return value

    def _corpus_row(self, values: dict[str, Any], label: float | None) -> _Row | None:
        text = clean(text_of(values.get(self.text_column)))
        words = text.split()
        fewest, most = self.opening_words
        if len(words) < self.min_words or (self.max_words and len(words) > self.max_words):
            return None
        if self.any_of and not {w.casefold() for w in self.any_of} & set(re.findall(r"\w+", text.casefold())):
            return None
        group = text_of(values.get(self.group_column)) if self.group_column else text
        order = _digest(str(self.seed), group, text)
        drawn = fewest + int(order[:8], 16) % (most - fewest + 1)
        if len(words) <= drawn:
            return None
        opening, rest = " ".join(words[:drawn]), " ".join(words[drawn:])
        prompt = self.template.replace("{text}", opening).rstrip()
        return _Row(group, prompt, opening, " " + rest, text, label, order)

    def _prompt_row(self, values: dict[str, Any], label: float | None) -> _Row | None:
        asked = text_of(values.get(self.prompt_column)).strip()
        words = len(asked.split())
        if not asked or words < self.min_words or (self.max_words and words > self.max_words):
            return None
        reference = text_of(values.get(self.reference_column)).strip() if self.reference_column else ""
        prompt = self.template.replace("{text}", asked).rstrip()
        spaced = " " + reference if reference and not self.chat else reference
        # Without a group column the prompt itself is the group: its rows may not lie in two parts.
        group = text_of(values.get(self.group_column)) if self.group_column else asked
        return _Row(group, prompt, "", spaced, reference, label, _digest(str(self.seed), group, asked, reference))

    def _split(self, rows: list[_Row], parts: dict[str, Part]) -> dict[str, list[_Row]]:
        """Deals the groups out to the parts, then takes rows from a part's groups in turn, so that it has many."""
        groups = sorted({row.group for row in rows}, key=lambda group: _digest(str(self.seed), "group", group))
        owner: dict[str, str] = {}
        share = 0.0
        for name, part in parts.items():
            first, share = round(share * len(groups)), share + part.groups
            owner.update(dict.fromkeys(groups[first : round(share * len(groups))], name))
        queues: dict[str, list[tuple[int, str, _Row]]] = {name: [] for name in parts}
        turn: dict[str, int] = {}
        for row in rows:
            if name := owner.get(row.group):
                turn[row.group] = turn.get(row.group, 0) + 1
                queues[name].append((turn[row.group], row.order, row))
        once = bool(self.text_column) or not self.label_column  # else a prompt may have several labelled answers
        used: dict[str, str] = {}
        chosen: dict[str, list[_Row]] = {}
        # The small parts choose first: they are the ones that can spare least.
        for name in sorted(parts, key=lambda name: (parts[name].size, name)):
            chosen[name] = []
            for _, _, row in sorted(queues[name], key=lambda entry: entry[:2]):
                if len(chosen[name]) == parts[name].size:
                    break
                if row.prompt in used and (once or used[row.prompt] != name):
                    continue
                used[row.prompt] = name
                chosen[name].append(row)
        for name, part in parts.items():
            if len(chosen[name]) < part.size:
                raise BadInput(
                    f"parts.{name}.size",
                    f"{part.size} rows are wanted, but its {sum(o == name for o in owner.values())} groups hold "
                    f"{len(chosen[name])} with a prompt of their own; lower the size, raise the share of groups or "
                    "relax the filters",
                )
        return chosen

    def _prompt(self, part: str, row: _Row) -> Prompt:
        return Prompt(
            id=f"{part}-{_digest(row.prompt, row.text if self.text_column else '')[:12]}",
            part=part,
            text=row.prompt,
            messages=[{"role": "user", "content": row.prompt}] if self.chat else [],
            opening=row.opening,
            reference=row.reference,
        )


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _first_by_id(prompts: Iterable[Prompt]) -> list[Prompt]:
    return list({prompt.id: prompt for prompt in reversed(list(prompts))}.values())[::-1]
