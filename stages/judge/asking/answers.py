"""Reads the raw answer of a judge: it holds a preference, or it is one of the failures. Nothing here asks anybody."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.errors import BadInput
from stages.judge.asking.template import labels
from stages.judge.verdicts import preference
from stages.judge.verdicts.outcomes import VERDICT
from stages.judge.verdicts.preference import NoVerdict

PATTERN = r"\[\[(A|B|tie)\]\]"
"""Searched for in the last line that is not blank only, so that a verdict quoted from a response does not count."""
SCHEMA = {
    "type": "object",
    "properties": {"rationale": {"type": "string"}, "verdict": {"type": "string", "enum": ["A", "B", "tie"]}},
    "required": ["rationale", "verdict"],
    "additionalProperties": False,
}
_SORRY = re.compile(
    r"^\W*(i[’']?m sorry|i am sorry|sorry\b|i can(no|[’'])t|i[’']?m (not able|unable)|i am unable|i won[’']t)", re.I
)


@dataclass(frozen=True)
class Answer:
    """What the judge's answer to one question says."""

    outcome: str
    """One of `stages.judge.verdicts.outcomes`."""
    preference: float | None = None
    """1…2, 2 = the candidate is preferred; None without a verdict."""
    text: str = ""
    """What the judge wrote."""
    problem: str = ""
    """One line about a failure."""


def read_answer(
    response: Mapping[str, Any], mode: str, *, candidate_first: bool, model: str, pattern: str = PATTERN
) -> Answer:
    """Reads a raw chat completion. `model`: the name that the server has to give; another model's answer is no verdict.

    `mode`: `logprob`, `structured` or `text`. `candidate_first`: whether the candidate was shown first. `pattern`: for
    `text`, see `PATTERN`.
    """
    returned = response.get("model")
    if returned != model:
        return Answer("wrong_model", problem=f"answered by {returned!r} instead of {model!r}")
    choice, message = first_choice(response)
    if choice is None:
        return Answer("empty", problem="the answer has no choices")
    text = written(message)
    finish = choice.get("finish_reason")
    if finish == "content_filter":
        return Answer("filtered", text=text, problem="stopped by the server's content filter")
    if message.get("refusal"):
        return Answer("refusal", text=str(message["refusal"]), problem="the judge refused")
    try:
        if mode == "logprob":
            return _from_logprobs(choice, text, candidate_first)
        if not text.strip():
            return Answer("empty", problem="the judge wrote nothing")
        name = _from_json(text) if mode == "structured" else _from_text(text, pattern)
        first, second = labels(mode)
        token = {first: preference.FIRST, second: preference.SECOND, "tie": "tie"}.get(name, name)
        return Answer(VERDICT, preference.preference_from_choice(token, candidate_first=candidate_first), text)
    except NoVerdict as error:
        if finish == "length":
            return Answer("truncated", text=text, problem="cut at the token limit before the verdict")
        if _SORRY.match(text):
            return Answer("refusal", text=text, problem="the judge declined in words")
        return Answer("unreadable", text=text, problem=str(error))


def first_choice(response: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """The first choice and its message; (None, {}) where there is none."""
    choices = response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        return None, {}
    message = choice.get("message")
    return choice, message if isinstance(message, Mapping) else {}


def written(message: Mapping[str, Any]) -> str:
    """What the judge wrote; empty where the message has no text."""
    content = message.get("content")
    return content if isinstance(content, str) else ""


def top_logprobs(choice: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(token, log-probability in nats) of the likeliest first tokens; empty where the server gave none."""
    try:
        return [(str(t["token"]), float(t["logprob"])) for t in choice["logprobs"]["content"][0]["top_logprobs"]]
    except (KeyError, IndexError, TypeError, ValueError):
        return []


def _from_logprobs(choice: Mapping[str, Any], text: str, candidate_first: bool) -> Answer:
    if not (top := top_logprobs(choice)):
        return Answer("missing_logprobs", text=text, problem="the answer has no log-probabilities")
    try:
        value = preference.preference_from_logprobs(*preference.token_logprobs(top), candidate_first=candidate_first)
    except NoVerdict as error:
        return Answer("no_preference", text=text, problem=str(error))
    return Answer(VERDICT, value, text)


def _from_json(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        raise NoVerdict("the answer is no JSON object") from None
    if not isinstance(found, dict) or set(found) != {"rationale", "verdict"} or not isinstance(found["verdict"], str):
        raise NoVerdict("the answer's JSON is not {rationale, verdict}")
    return found["verdict"]


def _from_text(text: str, pattern: str) -> str:
    last = text.strip().splitlines()[-1]
    found = {match.group(1) for match in re.finditer(pattern, last)}
    if len(found) != 1:
        raise NoVerdict(f"the last line holds {'no verdict' if not found else 'several verdicts'}")
    return found.pop()


def checked_pattern(pattern: str) -> str:
    """Raises BadInput where `pattern` is no regular expression with one group for the verdict."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise BadInput("pattern", f"{pattern!r} is no regular expression: {error}") from None
    if groups != 1:
        raise BadInput("pattern", f"{pattern!r} needs exactly one group, which holds A, B or tie")
    return pattern
