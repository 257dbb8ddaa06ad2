"""A trained value opened by one call: the trunk it reads, the reward's own unit, what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.errors import BadInput
from stages.learn.values.load import load_value
from stages.learn.values.scalar_head import ValueHead, fingerprint
from stages.learn.values.vocab_head import VocabHead

PROMPT, RESPONSE = [5, 9], [30, 31, 2]


def states(model: Path, layer: int) -> torch.Tensor:
    """(T+1, D) of the prompt's last token and of the response's tokens, by a plain forward."""
    from stages.engine.language_model import load_model

    out = load_model(model, dtype="float32", device="cpu")(
        input_ids=torch.tensor([PROMPT + RESPONSE]), output_hidden_states=True
    )
    return out.hidden_states[layer][0, 1:]


def test_values_are_in_the_reward_s_own_unit(tmp_path: Path, tiny_model: Path):
    head = ValueHead(size=32, rewards=["a", "b"], layer=1, trunk=fingerprint(tiny_model), dtype="float32")
    torch.nn.init.normal_(head.last.weight)
    head.mean.copy_(torch.tensor([5.0, -1.0]))
    head.sd.copy_(torch.tensor([2.0, 0.5]))
    head.save(tmp_path)
    found = load_value(tmp_path, tiny_model).states(PROMPT, RESPONSE)
    z = head(states(tiny_model, 1)).detach().double().numpy()  # (4, 2)
    assert found == pytest.approx(np.array([5.0, -1.0]) + np.array([2.0, 0.5]) * z, abs=1e-4)


def test_a_head_over_the_vocabulary_says_nothing_of_the_first_state(tmp_path: Path, tiny_model: Path):
    head = VocabHead(size=32, vocabulary=400, reward="a", layer=2, trunk=fingerprint(tiny_model), dtype="float32")
    torch.nn.init.normal_(head.last.weight)
    head.save(tmp_path)
    found = load_value(tmp_path, tiny_model).states(PROMPT, RESPONSE)
    q = head(states(tiny_model, 2))  # (4, V)
    assert np.isnan(found[0]).all()
    assert found[1:, 0] == pytest.approx([float(q[t, token].detach()) for t, token in enumerate(RESPONSE)], abs=1e-4)


def test_text_is_encoded_by_the_trunk_s_tokenizer(tmp_path: Path, tiny_model: Path):
    ValueHead(size=32, rewards=["a"], layer=1, trunk=fingerprint(tiny_model), dtype="float32").save(tmp_path)
    value = load_value(tmp_path, tiny_model)
    tokens = len(value.trunk.tokenizer(" is dull", add_special_tokens=False)["input_ids"])
    assert value.score("the film", " is dull").shape == (tokens + 1, 1)


def test_the_trunk_beside_the_head_is_preferred_and_another_one_refused(
    tmp_path: Path, tiny_model: Path, tuned_model: Path
):
    import shutil

    ValueHead(size=32, rewards=["a"], layer=1, trunk=fingerprint(tuned_model), dtype="float32").save(tmp_path)
    with pytest.raises(BadInput, match=r"^base: .*give the folder of π₀"):
        load_value(tmp_path)
    with pytest.raises(BadInput, match=r"^base: .*is not the model that the value"):
        load_value(tmp_path, tiny_model)
    shutil.copytree(tuned_model, tmp_path / "model")
    assert load_value(tmp_path, tiny_model).states(PROMPT, RESPONSE).shape == (4, 1)
