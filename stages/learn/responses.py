"""Log-probabilities of responses under a causal language model: what fine-tuning, DPO and PPO are made of."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from stages.engine.head import Head


class Exchange(NamedTuple):
    """A prompt and one response to it, as tokens."""

    prompt: list[int]
    """Read, not predicted."""
    response: list[int]
    """Predicted; its EOS included where it has one."""


class Predicted(NamedTuple):
    """The N positions of a batch that stand before a response token, in the order of rows, then of tokens."""

    states: torch.Tensor
    """(N, D) final hidden states."""
    targets: torch.Tensor
    """(N,) the tokens that follow."""
    rows: torch.Tensor
    """(N,) which sequence of the batch each belongs to."""


def predict(model: PreTrainedModel, batch: Sequence[Exchange]) -> Predicted:
    """One forward of the trunk over prompts and responses (S tokens the longest).

    Padding stands on the right behind a causal mask and is left out, so it cannot change a figure.
    """
    longest = max(len(s.prompt) + len(s.response) for s in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)  # (b, S)
    inside = torch.zeros(len(batch), longest, dtype=torch.bool)
    mask = torch.zeros_like(ids)
    for row, (prompt, response) in enumerate(batch):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        inside[row, len(prompt) : end] = True
        mask[row, :end] = 1
    ids, inside = ids.to(model.device), inside.to(model.device)
    trunk = cast(Any, model.base_model)
    states = trunk(input_ids=ids, attention_mask=mask.to(model.device), use_cache=False).last_hidden_state  # (b, S, D)
    predicted = inside[:, 1:]  # (b, S − 1)
    return Predicted(states[:, :-1][predicted], ids[:, 1:][predicted], predicted.nonzero()[:, 0])


def token_logprobs(model: PreTrainedModel, predicted: Predicted, temperature: float = 1.0) -> torch.Tensor:
    """(N,) log π of the response tokens in nats, float32. The prompt costs no vocabulary."""
    logits = Head.of(model)(predicted.states)  # (N, V)
    return -F.cross_entropy(logits.float() / temperature, predicted.targets, reduction="none")


def response_logprobs(model: PreTrainedModel, batch: Sequence[Exchange]) -> torch.Tensor:
    """(b,) log π(response | prompt) in nats, summed over the response's tokens."""
    predicted = predict(model, batch)
    logprobs = token_logprobs(model, predicted)  # (N,)
    return logprobs.new_zeros(len(batch)).index_add(0, predicted.rows, logprobs)


def response_nats(model: PreTrainedModel, batch: Sequence[Exchange]) -> tuple[torch.Tensor, int]:
    """−log π of all response tokens of a batch, summed, in nats, and their number."""
    logprobs = token_logprobs(model, predict(model, batch))
    return -logprobs.sum(), len(logprobs)


def by_length(sequences: Sequence[Exchange], rows: int) -> Iterator[list[int]]:
    """Indices of sequences of like length, `rows` at a time."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].prompt) + len(sequences[i].response))
    for start in range(0, len(order), rows):
        yield order[start : start + rows]
