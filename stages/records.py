"""The records that pass between stages, and how they lie on disk.

Dimension letters, used in every shape comment of the project:

    B  prompts in a batch          C  candidates per row (VAS's k)     V  vocabulary
    W  beams                       T  tokens                           D  hidden size
    K  successors of a beam        S  cached positions                 M  rewards
    R = B·W·K  rows

Each record is a frozen dataclass; `schema` derives the Arrow schema from it, `write` and `read` move lists of records
through one Parquet file a kind, which `datasets.load_dataset("parquet", ...)` opens too.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True, kw_only=True)
class Example:
    """A labelled text, for reward models. Read by `reward`."""

    id: str
    part: str
    """Which of the disjoint parts of the data: `proxy`, `gold`, …; `*_heldout` parts only measure."""
    prompt: str
    """What was asked; empty where the text stands alone."""
    text: str
    label: float
    """1.0 good, 0.0 bad; graded labels lie between."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a policy is asked to continue."""

    id: str
    part: str
    """Disjoint roles: `sft`, `train` (rollouts), `validation` (choices), `test` (the report)."""
    text: str
    """The prompt as the policy sees it, template applied; no trailing blank."""
    messages: list[dict[str, str]] = field(default_factory=list)
    """Chat form, `{role, content}` each; where not empty, the model's own chat template replaces `text`."""
    opening: str = ""
    """The part of `text` that already belongs to the response; rewards judge opening + response."""
    reference: str = ""
    """A known good response, with its leading blank; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One sampled response."""

    prompt_id: str
    sample: int
    """Index among the prompt's samples, from 0."""
    token_ids: list[int]
    """(T,) response tokens, EOS included where it was drawn; never padding, never the prompt."""
    text: str
    """Response decoded without special tokens."""
    logprob: float
    """log π(y|x) in nats, summed over the T tokens, of the policy *as sampled* (temperature, truncation, tilt)."""
    finished: bool
    """True: ended by EOS or a stopping string. False: cut at the token limit."""
    tokens: int = 0
    """Tokens that all models together read or wrote for this response; 0 where nobody counted. Rejected candidates and
    samples count too. The prompt counts once, with sample 0. A reward that selects among samples counts what it read
    where it says how much that is."""
    flops: float = 0.0
    """2·parameters·tokens plus attention, summed over all models that `tokens` counts."""


@dataclass(frozen=True, kw_only=True)
class Labelled(Rollout):
    """A rollout with one value per reward model."""

    part: str
    """The prompt's part."""
    rewards: dict[str, float]
    """Reward by name, in the reward model's own unit (logits for classifiers); one Parquet column each."""


@dataclass(frozen=True, kw_only=True)
class Generation(Rollout):
    """A response produced by a method."""

    part: str
    method: str
    settings: str
    """The method's strength and size as JSON, e.g. `{"beta": 4.0, "k": 20}`."""
    base_logprob: float
    """log π₀(y|x) in nats of the base policy as sampled: same temperature and truncation; −inf where that could not
    have drawn it, nan where it was not measured."""
    kl: float
    """Estimate of KL(π ‖ π₀) of the sequence in nats; nan where the method has none."""
    kl_kind: str
    """`exact` (sum of exact per-step KL), `bound` (Best-of-n), `untruncated` (a tuned policy's, where truncation makes
    it infinite: sum of exact per-step KL before truncation, same temperature, same states) or `none`."""
    seconds: float
    """Wall time of the batch loop, divided evenly among its responses."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one generation is worth."""

    prompt_id: str
    part: str
    sample: int
    method: str
    settings: str
    prompt: str
    text: str
    rewards: dict[str, float]
    """`proxy` guided (or could have), `gold` never guides, selects or trains."""
    kl: float
    kl_kind: str
    logprob: float
    base_logprob: float
    length: int
    """Response tokens, EOS included."""
    finished: bool
    distinct_2: float
    """Distinct bigrams of words ÷ bigrams of words, 1 where there are fewer than two words."""
    repetition: float
    """Share of the response's word 4-grams that occurred before in it."""
    tokens: int
    flops: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one judge said about one pair of responses to a prompt, shown in one order."""

    prompt_id: str
    part: str
    """The prompt's part."""
    sample: int
    """Index of the pair among the prompt's samples, from 0."""
    judge: str
    """Name of the judge."""
    candidate: str
    """The method that is judged; `null model` where the pair is a canary."""
    reference: str
    """The method that the candidate is compared with."""
    canary: bool
    """True: the candidate is the null model, which gives everybody the same answer and has to lose."""
    order: str
    """Which response was shown first: `candidate_first` or `reference_first`; `either` for a judge that reads each
    response by itself (the reward)."""
    preference: float | None
    """1 (the reference is better) … 2 (the candidate is); None where there is no verdict."""
    outcome: str
    """`verdict`; `identical` (both responses are the same: 1.5, and nobody was asked); or the kind of failure
    (`stages.judge.verdicts.outcomes.FAILURES`)."""
    problem: str
    """One line about a failure; empty without one."""
    candidate_chars: int
    """Characters of the candidate's response as a judge reads it: the prompt's opening and the response."""
    reference_chars: int
    """Characters of the reference's response, counted in the same way."""
    answer: str
    """What the judge wrote, its reasons included."""
    asked: int
    """How often the question was asked: 0 where nobody was, more than 1 where answers held no verdict."""
    model: str
    """The model's name as the server gave it back; empty without an answer."""
    prompt_tokens: int
    """Tokens of all questions asked for this verdict, as the server counted them."""
    completion_tokens: int
    """Tokens of all answers to them, as the server counted them."""
    cost: float | None
    """US dollars of all questions and answers; None where the model's price is not known."""
    request: str
    """Key of the answer that decided, in the record of requests; empty where nobody was asked."""


Record = TypeVar("Record")
_PLAIN = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_MAPPED = "rewards"


def _arrow_type(annotation: Any) -> pa.DataType:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is list:
        return pa.list_(_arrow_type(args[0]))
    if origin is dict and args == (str, str):
        return pa.struct([("role", pa.string()), ("content", pa.string())])
    if origin in (typing.Union, types.UnionType):
        return _arrow_type(next(a for a in args if a is not type(None)))
    raise TypeError(f"no Arrow type for {annotation}")


def schema(kind: type, rewards: Iterable[str] = ()) -> pa.Schema:
    """Arrow schema of a record class; a `rewards` field becomes one float64 column `reward.<name>` each."""
    hints = typing.get_type_hints(kind)
    columns: list[tuple[str, pa.DataType]] = []
    for f in dataclasses.fields(kind):
        if f.name == _MAPPED:
            columns += [(f"reward.{name}", pa.float64()) for name in rewards]
        else:
            columns.append((f.name, _arrow_type(hints[f.name])))
    return pa.schema(columns)


def write(path: Path, kind: type[Record], records: Iterable[Record]) -> None:
    """Writes records of one class to a Parquet file, in the order given."""
    rows = [dict(vars(record)) for record in records]  # type: ignore[arg-type]
    names = sorted({name for row in rows for name in row.get(_MAPPED, ())})
    for row in rows:
        for name, value in row.pop(_MAPPED, {}).items():
            row[f"reward.{name}"] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema(kind, names)), path)


def read(path: Path, kind: type[Record]) -> list[Record]:
    """Reads what `write` wrote. Raises FileNotFoundError, or ValueError where a column is missing."""
    table = pq.read_table(path)
    fields = [f.name for f in dataclasses.fields(kind) if f.name != _MAPPED]  # type: ignore[arg-type]
    if missing := [name for name in fields if name not in table.column_names]:
        raise ValueError(f"{path} holds no {kind.__name__} records: column {missing[0]!r} is missing")
    names = [column.removeprefix("reward.") for column in table.column_names if column.startswith("reward.")]
    records = []
    for row in table.to_pylist():
        values = {name: row[name] for name in fields}
        if any(f.name == _MAPPED for f in dataclasses.fields(kind)):  # type: ignore[arg-type]
            values[_MAPPED] = {name: row[f"reward.{name}"] for name in names}
        records.append(kind(**values))
    return records
