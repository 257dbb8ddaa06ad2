"""Which prompts the responses in a table answer."""

from collections.abc import Iterable
from pathlib import Path

from stages import records
from stages.errors import BadInput
from stages.records import Prompt, Rollout


def asked_prompts(prompts: Path, responses: Iterable[Rollout], what: str = "rollouts") -> dict[str, Prompt]:
    """The prompts in the payload of stage `prompts`, by id.

    Raises BadInput where there is no such table, or where one of the responses (`what` says what they are called)
    answers a prompt that is not in it.
    """
    try:
        known = {prompt.id: prompt for prompt in records.read(Path(prompts) / "prompts.parquet", Prompt)}
    except (FileNotFoundError, ValueError) as error:
        raise BadInput("prompts", str(error).splitlines()[0]) from error
    if missing := next((r.prompt_id for r in responses if r.prompt_id not in known), None):
        raise BadInput("prompts", f"prompt {missing!r} has {what} but is not among the prompts")
    return known
