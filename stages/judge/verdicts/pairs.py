"""What is judged: two methods' responses to the same prompts side by side, and a null model's beside the reference."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages import records
from stages.errors import BadInput
from stages.judge.verdicts.verdicts import NULL_MODEL, Pair
from stages.records import Generation, Prompt


def pairs_of(generations: Path, reference_generations: Path, prompts: Path, parts: Sequence[str]) -> list[Pair]:
    """Both methods' responses to the prompts of `parts` (empty: all), in the candidate's order.

    Raises BadInput, with the argument's name as the field, for payloads that are missing or empty, parts that nobody
    answered, and prompts that only one of the two answered (which ids).
    """
    candidates = _read(Path(generations) / "generations.parquet", Generation, "generations")
    references = _read(Path(reference_generations) / "generations.parquet", Generation, "reference_generations")
    known = {p.id: p for p in _read(Path(prompts) / "prompts.parquet", Prompt, "prompts")}
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
            instruction=instruction_of(known[g.prompt_id]),
            sample=g.sample,
            candidate=g.text,
            reference=by_key[g.prompt_id, g.sample].text,
            candidate_method=g.method,
            reference_method=by_key[g.prompt_id, g.sample].method,
        )
        for g in candidates
    ]


def canaries(pairs: Sequence[Pair], count: int, text: str) -> list[Pair]:
    """The null model on some prompts, always the same ones: its verdicts are bought once for all methods."""
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


def instruction_of(prompt: Prompt) -> str:
    """What was asked, as a judge reads it: the prompt's text, or its messages; one user message stands by itself.

    >>> instruction_of(Prompt(id="a", part="test", text="", messages=[{"role": "user", "content": "Why?"}]))
    'Why?'
    """
    if not prompt.messages:
        return prompt.text
    if len(prompt.messages) == 1:
        return prompt.messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in prompt.messages)


def _difference(asked: set[tuple[str, int]], answered: set[tuple[str, int]]) -> str:
    """One line that names what only one of the methods has; empty where they match."""
    for missing, whose in ((asked - answered, "the reference"), (answered - asked, "the candidate")):
        if missing:
            ids = list(dict.fromkeys(prompt_id for prompt_id, _ in sorted(missing)))
            shown = ", ".join(repr(i) for i in ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
            return f"{whose} has no response (of that sample) to {shown}"
    return ""


def _read(path: Path, kind: type, field_name: str) -> list[Any]:
    try:
        return records.read(path, kind)
    except OSError as error:
        raise BadInput(field_name, f"{path} cannot be read: {error.strerror or 'there is no such file'}") from error
    except ValueError as error:
        raise BadInput(field_name, str(error).splitlines()[0]) from error
