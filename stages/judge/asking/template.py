"""The prompts of judges: template files that are filled in once. Places inside an output are not filled in.

A template has a part below the line `[system]` (optional) and one below `[user]`. In them `{{instruction}}`,
`{{first}}`, `{{second}}` stand for the texts as they are, `{{instruction_json}}`, `{{first_json}}`, `{{second_json}}`
for the same as JSON strings of ASCII (no line break, no bare quote), `{{first_label}}`, `{{second_label}}` for the
names of the outputs, `{{fence}}` for a random word that occurs in none of them, and `{{answer}}` for how to answer.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stages.errors import BadInput
from stages.judge.verdicts import preference

FOLDER = Path(__file__).parent / "templates"
MODES = ("logprob", "structured", "text")
SHIPPED = {
    "alpaca_eval": "8285f36a680c2074",
    "dialogue": "1ae0de2c8df9a449",
    "hardened": "5d61e2122e3bc765",
    "summarisation": "e9d8dd75bfc419dd",
    "answer_logprob": "1b688dd6f458dead",
    "answer_structured": "bcaafb22ad70c6d9",
    "answer_text": "aa8ac130e2a7ad60",
}
"""The start of each shipped file's sha256. It stands in the code so that a new template is new code, and verdicts that
were made with the old one are not reused for it."""
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_PLACES = {
    "instruction", "first", "second", "instruction_json", "first_json", "second_json",
    "first_label", "second_label", "fence", "answer",
}  # fmt: skip


@dataclass(frozen=True)
class Template:
    """A template, not yet filled in."""

    system: str
    """Text of the system message; empty: there is none."""
    user: str
    answer: str
    """How to answer, in this verdict mode; it stands where `{{answer}}` is."""


def labels(mode: str) -> tuple[str, str]:
    """What the outputs shown first and second are called: one token each for log-probabilities, A and B otherwise."""
    return (preference.FIRST, preference.SECOND) if mode == "logprob" else ("A", "B")


def load_template(name: str, mode: str) -> Template:
    """A shipped template by name, or your own by path. Raises BadInput for `template` or `mode` that do not exist."""
    if mode not in MODES:
        raise BadInput("mode", f"{mode!r} is no verdict mode; choose one of {', '.join(MODES)}")
    text = _shipped(name) if name in SHIPPED and not name.startswith("answer_") else _own(name)
    head, separator, user = text.partition("[user]\n")
    if not separator or not user.strip():
        raise BadInput("template", f"{name} has no part below a line `[user]`")
    system = head.partition("[system]\n")[2]
    used = set(_PLACE.findall(system + user))
    if unknown := sorted(used - _PLACES):
        raise BadInput(
            "template", f"{name} has {{{{{unknown[0]}}}}}, which stands for nothing; {', '.join(sorted(_PLACES))} do"
        )
    for needed in ("instruction", "first", "second"):
        if not used & {needed, f"{needed}_json"}:
            raise BadInput("template", f"{name} shows no {{{{{needed}}}}}: the judge could not see it")
    if "answer" not in used:
        raise BadInput("template", f"{name} has no {{{{answer}}}}: the judge would not know how to answer")
    return Template(system.strip(), user.strip(), _shipped(f"answer_{mode}").strip())


def render(
    template: Template, mode: str, *, instruction: str, first: str, second: str, seed: int = 0
) -> list[dict[str, str]]:
    """Chat messages of one comparison. The fence depends on `seed` and the three texts alone."""
    first_label, second_label = labels(mode)
    values = {
        "instruction": instruction,
        "first": first,
        "second": second,
        "instruction_json": json.dumps(instruction),
        "first_json": json.dumps(first),
        "second_json": json.dumps(second),
        "first_label": first_label,
        "second_label": second_label,
        "fence": fence(seed, instruction, first, second),
    }
    values["answer"] = _fill(template.answer, values)
    messages = [{"role": "user", "content": _fill(template.user, values)}]
    if template.system:
        messages.insert(0, {"role": "system", "content": _fill(template.system, values)})
    return messages


def fence(seed: int, *texts: str) -> str:
    """A word that occurs in none of the texts, and that nobody could know who wrote one of them."""
    for attempt in range(1000):
        word = hashlib.sha256("\0".join([str(seed), str(attempt), *texts]).encode("utf-8", "replace")).hexdigest()[:20]
        if not any(word in text for text in texts):
            return word
    raise AssertionError("unreachable: 1,000 digests of a text inside the text itself")


def _fill(text: str, values: dict[str, str]) -> str:
    # One pass: what is put in is not looked at again, so an output with {{answer}} in it stays as it is.
    return _PLACE.sub(lambda place: values[place.group(1)], text)


@cache
def _shipped(name: str) -> str:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    if hashlib.sha256(text.encode()).hexdigest()[:16] != SHIPPED[name]:
        raise BadInput(
            "template", f"{name}.txt was edited in place; copy it and name your copy: template=${{file:PATH}}"
        )
    return text


def _own(name: str) -> str:
    try:
        path = Path(name).expanduser()
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput("template", f"{name} is no text in UTF-8") from None
    except PermissionError as error:
        raise BadInput("template", f"{name} cannot be read: {error.strerror}") from None
    except (OSError, RuntimeError, ValueError):  # too long for a name, a home that nobody has, a null byte
        pass
    shipped = ", ".join(n for n in SHIPPED if not n.startswith("answer_"))
    shown = repr(name if len(name) <= 60 else name[:57] + "…")
    raise BadInput("template", f"{shown} is neither a shipped template ({shipped}) nor a file of yours")
