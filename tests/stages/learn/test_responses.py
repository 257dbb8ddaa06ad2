"""Log-probabilities of responses, against plain forwards of one sequence at a time."""

from pathlib import Path

import pytest
import torch

from stages.engine.language_model import load_model
from stages.learn.responses import Exchange, by_length, predict, response_logprobs, response_nats, token_logprobs

BATCH = [Exchange([5, 9, 17], [30, 2]), Exchange([40], [41, 42, 43, 44, 2])]


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return load_model(tiny_model, dtype="float32", device="cpu")


def by_hand(model, exchange: Exchange, temperature: float = 1.0) -> list[float]:
    """log softmax(logits / temperature)[next token] at the positions before a response token."""
    logits = model(input_ids=torch.tensor([exchange.prompt + exchange.response])).logits[0] / temperature
    start = len(exchange.prompt)
    return [float(logits[start + i - 1].log_softmax(-1)[token]) for i, token in enumerate(exchange.response)]


def test_the_positions_before_response_tokens_are_found_row_by_row(model):
    found = predict(model, BATCH)
    assert found.targets.tolist() == [30, 2, 41, 42, 43, 44, 2]
    assert found.rows.tolist() == [0, 0, 1, 1, 1, 1, 1]
    alone = torch.cat([predict(model, [exchange]).states for exchange in BATCH])
    assert torch.allclose(found.states, alone, atol=1e-5)  # padding plays no part


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_token_logprobs_are_at_the_temperature(model, temperature: float):
    found = token_logprobs(model, predict(model, BATCH), temperature)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([x for e in BATCH for x in by_hand(model, e, temperature)], abs=1e-4)


def test_a_response_s_log_probability_is_the_sum_over_its_tokens(model):
    expected = [sum(by_hand(model, e)) for e in BATCH]
    assert response_logprobs(model, BATCH).tolist() == pytest.approx(expected, abs=1e-4)
    nats, tokens = response_nats(model, BATCH)
    assert tokens == 7
    assert float(nats) == pytest.approx(-sum(expected), abs=1e-4)


def test_sequences_of_like_length_go_together():
    # lengths 5, 6, 2, 3
    sequences = [*BATCH, Exchange([1], [2]), Exchange([1, 1], [2])]
    assert list(by_length(sequences, 2)) == [[2, 3], [0, 1]]
    assert list(by_length(sequences, 3)) == [[2, 3, 0], [1]]
    assert list(by_length([], 3)) == []
