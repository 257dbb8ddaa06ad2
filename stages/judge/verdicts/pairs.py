"""What is judged: the responses of two methods to the same prompts, pair by pair, and those of a null model.

The null model is the canary: it gives everybody the same answer, so a sound judge lets it lose.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.errors import BadInput
from stages.payloads import read_records
from stages.records import Generation, Prompt

NULL_MODEL = "null model"
"""What tables call the method of a canary."""


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt."""

    prompt: Prompt
    instruction: str
    """What was asked, as a judge reads it."""
    sample: int
    """Index of both responses among the prompt's samples."""
    candidate: str
    """The candidate's response. A judge reads the prompt's opening before it."""
    reference: str
    """The reference's response, in the same way."""
    candidate_method: str
    reference_method: str
    canary: bool = False
    """True: the candidate is the null model."""


def pairs_of(generations: Path, reference_generations: Path, prompts: Path, parts: Sequence[str]) -> list[Pair]:
    """The responses of both methods to the prompts of `parts` (empty: all), in the order of the candidate's.

    Raises BadInput, with the argument's name as the field, for folders whose records are missing or empty, for parts
    without a response, and for prompts that only one of the two answered; it names these.
    """
    candidates = read_records(Path(generations) / "generations.parquet", Generation, "generations")
    references = read_records(Path(reference_generations) / "generations.parquet", Generation, "reference_generations")
    known = {p.id: p for p in read_records(Path(prompts) / "prompts.parquet", Prompt, "prompts")}
    if parts:
        present = sorted({g.part for g in candidates})
        if unknown := [part for part in parts if part not in present]:
            raise BadInput(
                "parts", f"no generation is in part {unknown[0]!r}; there are {', '.join(present) or 'none'}"
            )
        candidates = [g for g in candidates if g.part in parts]
        references = [g for g in references if g.part in parts]
    if not candidates:
        raise BadInput("generations", f"{generations} holds no generations")
    by_key = {(g.prompt_id, g.sample): g for g in references}
    asked = {(g.prompt_id, g.sample) for g in candidates}
    if problem := _difference(asked, set(by_key)):
        raise BadInput("reference_generations", f"{problem}; judge two methods on the same prompts and samples")
    if unknown := sorted({g.prompt_id for g in candidates} - known.keys()):
        raise BadInput("prompts", f"no prompt has the id {unknown[0]!r} that both methods answer")
    return [
        Pair(
            prompt=known[g.prompt_id],
            instruction=whole_chat(known[g.prompt_id]),
            sample=g.sample,
            candidate=g.text,
            reference=by_key[g.prompt_id, g.sample].text,
            candidate_method=g.method,
            reference_method=by_key[g.prompt_id, g.sample].method,
        )
        for g in candidates
    ]


def canaries(pairs: Sequence[Pair], count: int, text: str) -> list[Pair]:
    """Pairs of the null model and the reference, on `count` prompts at most. These are the same prompts for every
    candidate, so the verdicts on them are bought once. `text`: the null model's answer to everything."""
    firsts = {pair.prompt.id: pair for pair in reversed(pairs) if pair.reference != text}
    chosen = sorted(firsts.values(), key=lambda pair: hashlib.sha256(pair.prompt.id.encode()).hexdigest())
    return [
        Pair(
            prompt=pair.prompt,
            instruction=pair.instruction,
            sample=pair.sample,
            candidate=" " * bool(pair.prompt.opening) + text,
            reference=pair.reference,
            candidate_method=NULL_MODEL,
            reference_method=pair.reference_method,
            canary=True,
        )
        for pair in chosen[:count]
    ]


def whole_chat(prompt: Prompt) -> str:
    """Everything that was asked, as a judge reads it: the prompt's text, or all messages of a chat with their roles.

    A chat of one message is that message alone.

    >>> whole_chat(Prompt(id="a", part="test", text="", messages=[{"role": "user", "content": "Why?"}]))
    'Why?'
    """
    if not prompt.messages:
        return prompt.text
    if len(prompt.messages) == 1:
        return prompt.messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in prompt.messages)


def _difference(asked: set[tuple[str, int]], answered: set[tuple[str, int]]) -> str:
    """One line that names the prompts that only one of the methods answered; empty where there are none."""
    for missing, whose in ((asked - answered, "the reference"), (answered - asked, "the candidate")):
        if missing:
            ids = list(dict.fromkeys(prompt_id for prompt_id, _ in sorted(missing)))
            shown = ", ".join(repr(i) for i in ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
            return f"{whose} has no response (of that sample) to {shown}"
    return ""
