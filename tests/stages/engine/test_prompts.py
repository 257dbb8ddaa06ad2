"""From stage `prompts` to a model's token ids, and what is refused on the way."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from stages.engine.loaded import LoadedLM
from stages.engine.prompts import context_of, encode, encode_prompt, read_parts, require_positive, require_room
from stages.errors import BadInput
from stages.records import Prompt, write


def line(act: Any, *given: Any) -> str:
    with pytest.raises(BadInput) as error:
        act(*given)
    assert "\n" not in str(error.value)
    return str(error.value)


def model(context: int | None) -> Any:
    return SimpleNamespace(config=SimpleNamespace(**({} if context is None else {"max_position_embeddings": context})))


def test_parts_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    parts = ["test", "train", "validation", "test"]
    written = [Prompt(id=f"p{i}", part=part, text="so") for i, part in enumerate(parts)]
    write(tmp_path / "prompts.parquet", Prompt, written)
    assert [one.id for one in read_parts(tmp_path, ["validation", "test"])] == ["p0", "p2", "p3"]
    assert line(read_parts, tmp_path, []) == "parts: no part is named; choose from test, train, validation"
    assert line(read_parts, tmp_path, ["gold"], "rollouts.parts") == (
        "rollouts.parts: no prompt is in part 'gold'; there are test, train, validation"
    )
    missing = tmp_path / "nowhere" / "prompts.parquet"
    assert line(read_parts, missing.parent, ["test"]) == (
        f"prompts: {missing} does not exist; give the folder that stage `prompts` wrote"
    )


def test_a_prompt_is_its_text_or_its_messages_in_the_model_s_own_template(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    plain = Prompt(id="p", part="test", text="the film")
    assert encode_prompt(tokenizer, plain) == list(tokenizer("the film")["input_ids"])
    tokenizer.chat_template = "{{ messages[0].content }}, they say:{% if add_generation_prompt %} so{% endif %}"
    chat = Prompt(id="p", part="test", text="the film", messages=[{"role": "user", "content": "two"}])
    assert encode_prompt(tokenizer, chat) == list(tokenizer("two, they say: so")["input_ids"])
    assert encode_prompt(tokenizer, plain) == list(tokenizer("the film")["input_ids"])


def test_prompts_are_encoded_with_their_ids_and_an_empty_one_is_refused(policy: LoadedLM) -> None:
    prompts = [Prompt(id="a", part="test", text="the film"), Prompt(id="b", part="test", text="")]
    assert encode(prompts[:1], policy, 5) == [("a", list(policy.tokenizer("the film")["input_ids"]))]
    assert line(encode, prompts, policy, 5) == "prompts: prompt 'b' has no tokens; give it at least one word"


def test_the_last_token_that_fits_is_the_context_s_last() -> None:
    """7 + 5 = 12 fit 12 positions, 8 + 5 do not; the longest prompt is named."""
    require_room({"a": 7, "b": 3}, model(12), 5, "prompts")
    assert line(require_room, {"a": 7, "b": 8}, model(12), 5, "prompts") == (
        "prompts: prompt 'b' has 8 tokens and 5 are to be generated, but the model's context holds 12; shorten the "
        "prompt or set a smaller max_new_tokens"
    )


def test_a_model_that_names_no_context_has_room_for_everything() -> None:
    assert context_of(model(12)) == 12
    assert context_of(model(None)) is None
    require_room({"a": 10**6}, model(None), 5, "prompts")
    require_room({}, model(12), 500, "prompts")


@pytest.mark.parametrize("samples", [0, -1])
def test_samples_are_positive(samples: int) -> None:
    assert line(require_positive, samples) == f"samples: {samples} is not a positive number of samples per prompt"
    require_positive(1)
