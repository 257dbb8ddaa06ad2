"""One iteration's batch, and the model with its value head: written-out arithmetic and gradients."""

from pathlib import Path

import pytest
import torch

from stages.engine.language_model import load_model
from stages.learn.policies.experience import ActorCritic, Experience, padded
from stages.learn.responses import Exchange, predict

BATCH = [Exchange([5, 9], [30, 31, 2]), Exchange([40], [41])]


def experience(logprobs: list[list[float]], reference: list[list[float]], lengths: list[int]) -> Experience:
    zeros = torch.zeros(len(lengths), max(lengths))
    tensors = torch.tensor(logprobs), torch.tensor(reference), zeros, zeros, zeros
    return Experience([], torch.zeros(len(lengths)), torch.tensor(lengths), *tensors)


def test_flat_entries_go_back_to_their_rows():
    assert padded(torch.tensor([1.0, 2.0, 3.0]), [2, 1], 3).tolist() == [[1, 2, 0], [3, 0, 0]]


def test_kl_is_the_mean_over_responses_of_the_summed_log_ratio():
    # (−1 + 3) + (−2 + 1) = 1 and −4 + 6 = 2: the mean is 1.5 nats a response
    found = experience([[-1.0, -2.0], [-4.0, 0.0]], [[-3.0, -1.0], [-6.0, 0.0]], [2, 1])
    assert found.kl() == 1.5


def test_entries_of_chosen_responses_come_row_by_row_without_padding():
    found = experience([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0], [5.0, 6.0, 0.0]], [[0.0] * 3] * 3, [3, 1, 2])
    assert found.mask.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    assert found.flat(found.logprobs, [2, 0]).tolist() == [5.0, 6.0, 1.0, 2.0, 3.0]


@pytest.fixture
def actor(tiny_model: Path) -> ActorCritic:
    model = load_model(tiny_model, dtype="float32", device="cpu").requires_grad_(True)
    made = ActorCritic(model, width=8, temperature=0.5)
    torch.nn.init.normal_(made.critic.last.weight)
    return made


def test_log_probabilities_are_at_the_temperature_of_the_draws(actor: ActorCritic):
    logprobs, values = actor(BATCH)
    assert logprobs.shape == values.shape == (4,)
    expected = []
    for prompt, response in BATCH:
        logits = actor.model(input_ids=torch.tensor([prompt + response])).logits[0]
        for place, token in enumerate(response, len(prompt)):
            expected.append(float((logits[place - 1] / 0.5).log_softmax(-1)[token].detach()))
    assert logprobs.tolist() == pytest.approx(expected, abs=1e-4)


def test_the_critic_s_loss_leaves_the_policy_alone(actor: ActorCritic):
    _, values = actor(BATCH)
    values.sum().backward()
    assert all(p.grad is None for p in actor.model.parameters())
    assert actor.critic.last.weight.grad is not None
    assert actor.critic.last.weight.grad.abs().max() > 0


def test_the_critic_reads_states_standardised_by_those_it_was_shown(actor: ActorCritic):
    states = predict(actor.model, BATCH).states.detach()  # (4, D)
    actor.standardise(states)
    read: list[torch.Tensor] = []
    actor.critic.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    actor(BATCH)
    assert read[0].mean(0).tolist() == pytest.approx([0.0] * 32, abs=1e-4)
    assert read[0].std(0).tolist() == pytest.approx([1.0] * 32, abs=1e-3)
