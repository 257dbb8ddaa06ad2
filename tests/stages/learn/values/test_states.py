"""Where a head's states come from: read once from a frozen trunk, or computed in every step from an adapted one."""

from pathlib import Path

import pytest
import torch

from stages.engine.language_model import load_model
from stages.learn.trunk import Trunk
from stages.learn.values.states import AdaptedStates, Features, KeptStates, Standard, read_features

PROMPTS, RESPONSES = [[5, 9], [7]], [[30, 31, 2], [40, 2]]
SEQUENCES = [p + r for p, r in zip(PROMPTS, RESPONSES, strict=True)]
STARTS = [len(p) for p in PROMPTS]
CPU = torch.device("cpu")


def read(trunk: Trunk) -> list[Features]:
    return read_features(trunk, STARTS, SEQUENCES, dtype="float32", rows=1, progress=lambda *now: None)


def test_features_are_the_states_from_the_last_prompt_token_on(tiny_model: Path):
    told: list[tuple[int, int, str]] = []
    trunk = Trunk(tiny_model, layer=2, dtype="float32", device="cpu", whole=True)
    features = read_features(trunk, STARTS, SEQUENCES, dtype="bfloat16", rows=1, progress=lambda *now: told.append(now))
    whole = load_model(tiny_model, dtype="float32", device="cpu")
    for f, prompt, response, sequence in zip(features, PROMPTS, RESPONSES, SEQUENCES, strict=True):
        out = whole(input_ids=torch.tensor([sequence]), output_hidden_states=True)
        assert f.tokens.tolist() == response
        assert torch.allclose(f.states, out.hidden_states[2][0, len(prompt) - 1 :], atol=1e-5)
        assert f.final.dtype == torch.bfloat16  # as π₀'s head will read them
        assert torch.allclose(f.final.float(), out.hidden_states[3][0, len(prompt) - 1 :], atol=0.05)
    assert told == [(1, 2, "rollouts read"), (2, 2, "rollouts read")]


def test_final_states_are_kept_only_where_the_trunk_keeps_its_top(tiny_model: Path):
    features = read(Trunk(tiny_model, layer=1, dtype="float32", device="cpu"))
    assert [f.final.shape for f in features] == [(4, 0), (3, 0)]


def features_of(*states: list[float]) -> list[Features]:
    return [Features(torch.tensor(s)[:, None], torch.zeros(len(s) - 1), torch.zeros(len(s), 0)) for s in states]


def test_states_are_standardised_by_those_that_are_trained_on():
    # 1 3 and 5: mean 3, deviation 2 (of three, one degree of freedom); the held-out 7 is two deviations above
    train, held = features_of([1.0, 3.0], [5.0]), features_of([7.0])
    standard = Standard.of(train)
    assert (float(standard.centre), float(standard.scale)) == (3.0, pytest.approx(2.0, abs=1e-5))
    standard.apply(train + held)
    assert [f.states[:, 0].tolist() for f in train + held] == [
        pytest.approx([-1, 0], abs=1e-5),
        pytest.approx([1], abs=1e-5),
        pytest.approx([2], abs=1e-5),
    ]


def test_kept_states_are_padded_and_never_change():
    kept = KeptStates(features_of([1.0, 2.0, 3.0], [4.0]))
    assert kept.of([1, 0], CPU)[..., 0].tolist() == [[4.0, 0.0, 0.0], [1.0, 2.0, 3.0]]
    assert kept.settle() is False


def test_adapted_states_start_as_those_of_the_trunk_and_change_it_when_they_settle(tiny_model: Path):
    trunk = Trunk(tiny_model, layer=2, dtype="float32", device="cpu")
    features = read(trunk)
    standard = Standard.of(features)
    standard.apply(features)
    adapted = AdaptedStates(trunk, STARTS, SEQUENCES, standard, rank=2, alpha=4, top_layers=1)
    assert torch.allclose(adapted.of([1, 0], CPU)[1], features[0].states, atol=1e-4)  # LoRA starts at zero
    assert torch.allclose(adapted.of([1, 0], CPU)[0, :3], features[1].states, atol=1e-4)
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trained
    assert all(".layers.1." in name for name in trained)  # the layer below hidden state 2
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
        moved = adapted.of([0], CPU)[0]
    assert not torch.allclose(moved, features[0].states, atol=1e-2)
    assert adapted.settle() is True
    again = read(trunk)
    standard.apply(again)
    assert torch.allclose(again[0].states, moved, atol=1e-4)  # merged: what the adapters said, the trunk says now
    assert not any("lora" in name for name, _ in trunk.model.named_parameters())
