"""From stage `prompts` to a model's token ids: the parts that are asked for, the chat template, room in the context."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.errors import BadInput
from stages.records import Prompt, read

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages.engine.loaded import LoadedLM


def read_parts(folder: Path, parts: Sequence[str], field: str = "parts") -> list[Prompt]:
    """The prompts of the given parts, in the file's order. Raises BadInput where the file or a part is missing."""
    path = Path(folder) / "prompts.parquet"
    if not path.is_file():
        raise BadInput("prompts", f"{path} does not exist; give the folder that stage `prompts` wrote")
    everything = read(path, Prompt)
    present = sorted({prompt.part for prompt in everything})
    if not parts:
        raise BadInput(field, f"no part is named; choose from {', '.join(present)}")
    for part in parts:
        if part not in present:
            raise BadInput(field, f"no prompt is in part {part!r}; there are {', '.join(present) or 'none'}")
    return [prompt for prompt in everything if prompt.part in set(parts)]


def encode(prompts: Sequence[Prompt], lm: "LoadedLM", max_new_tokens: int) -> list[tuple[str, list[int]]]:
    """(id, token ids) of each prompt. Raises BadInput where one is empty or leaves no room for the response."""
    encoded = [(prompt.id, encode_prompt(lm.tokenizer, prompt)) for prompt in prompts]
    for name, ids in encoded:
        if not ids:
            raise BadInput("prompts", f"prompt {name!r} has no tokens; give it at least one word")
    require_room({name: len(ids) for name, ids in encoded}, lm.model, max_new_tokens, "prompts")
    return encoded


def require_positive(samples: int) -> None:
    if samples < 1:
        raise BadInput("samples", f"{samples} is not a positive number of samples per prompt")


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> list[int]:
    """Token ids of a prompt: its text as it stands, or its messages through the model's own chat template."""
    if prompt.messages:
        text = tokenizer.apply_chat_template(prompt.messages, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(str(text), add_special_tokens=False)["input_ids"])  # the template has them
    return list(tokenizer(prompt.text)["input_ids"])


def context_of(model: "PreTrainedModel") -> int | None:
    """Tokens that the model has positions for; None where it names no bound."""
    return getattr(model.config, "max_position_embeddings", None)


def require_room(lengths: dict[str, int], model: "PreTrainedModel", max_new_tokens: int, field: str) -> None:
    """Raises BadInput where a prompt (id → tokens) leaves no room for `max_new_tokens` in the model's context."""
    context = context_of(model)
    if context is None or not lengths:
        return
    longest = max(lengths, key=lengths.__getitem__)
    if lengths[longest] + max_new_tokens > context:
        raise BadInput(
            field,
            f"prompt {longest!r} has {lengths[longest]} tokens and {max_new_tokens} are to be generated, but the "
            f"model's context holds {context}; shorten the prompt or set a smaller max_new_tokens",
        )
