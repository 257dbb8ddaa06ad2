"""Our targets and losses against those of torchrl and TRL, which are development dependencies only."""

from pathlib import Path

import pytest
import torch

from stages.engine.language_model import load_model
from stages.learn.policies.advantages import gae
from stages.learn.values.td_lambda import td_lambda

LENGTHS = torch.tensor([7, 1, 4])


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Values of s₀ … s_T and rewards a token of three responses, with padding that must not be read."""
    generator = torch.Generator().manual_seed(0)
    values, rewards = torch.randn(3, 8, generator=generator), torch.randn(3, 7, generator=generator)
    place = torch.arange(8)[None]
    return values.masked_fill(place > LENGTHS[:, None], torch.nan), rewards.masked_fill(
        place[:, :7] >= LENGTHS[:, None], torch.nan
    )


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_gae_agrees_with_torchrl(lam: float, gamma: float):
    functional = pytest.importorskip("torchrl.objectives.value.functional", reason="torchrl is not installed")
    values, rewards = padded()
    advantages, returns = gae(values[:, :7], rewards, LENGTHS, lam, gamma)
    for row, length in enumerate(LENGTHS.tolist()):
        state = values[row, :length, None]
        done = torch.zeros(length, 1, dtype=torch.bool)
        done[-1] = True
        following = torch.cat([state[1:], torch.full((1, 1), 99.0)])  # behind the end: not to be read
        expected = functional.generalized_advantage_estimate(
            gamma, lam, state, following, rewards[row, :length, None], done
        )
        assert torch.allclose(advantages[row, :length], expected[0][:, 0], atol=1e-5)
        assert torch.allclose(returns[row, :length], expected[1][:, 0], atol=1e-5)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_td_lambda_agrees_with_torchrl(lam: float):
    functional = pytest.importorskip("torchrl.objectives.value.functional", reason="torchrl is not installed")
    values, scores = padded()[0], torch.tensor([1.5, -2.0, 0.3])
    found = td_lambda(values[..., None], scores[:, None], LENGTHS, lam)[..., 0]  # (3, 8)
    for row, length in enumerate(LENGTHS.tolist()):
        # T tokens have T + 1 states; leaving the last one pays the score and ends the episode.
        rewards, done = torch.zeros(length + 1, 1), torch.zeros(length + 1, 1, dtype=torch.bool)
        rewards[-1], done[-1] = scores[row], True
        following = torch.cat([values[row, 1 : length + 1, None], torch.full((1, 1), 99.0)])
        expected = functional.td_lambda_return_estimate(1.0, lam, following, rewards, done)
        assert torch.allclose(found[row, : length + 1], expected[:, 0], atol=1e-5)


PAIRS = [
    {"prompt_ids": [5, 9, 17], "chosen_ids": [30, 41, 2], "rejected_ids": [31, 2]},
    {"prompt_ids": [40], "chosen_ids": [44, 2], "rejected_ids": [45, 46, 47, 48]},
]


@pytest.mark.parametrize(
    ("kind", "pairs", "settings"),
    [
        ("sigmoid", 2, {}),
        ("sigmoid_norm", 2, {"length_normalised": True}),
        ("aot", 1, {"label_smoothing": 0.2}),  # with one pair nothing is sorted: conservative DPO itself
    ],
)
def test_dpo_loss_and_gradients_agree_with_trl(tmp_path: Path, tiny_model: Path, kind: str, pairs: int, settings: dict):
    trl = pytest.importorskip("trl", reason="trl is not installed")
    from datasets import Dataset
    from transformers import AutoTokenizer

    from stages.learn.policies.dpo import Pair, pair_losses, reference_logprobs

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    reference = load_model(tiny_model, dtype="float32", device="cpu")
    policy = load_model(tiny_model, dtype="float32", device="cpu").requires_grad_(True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))

    chosen = [Pair(p["prompt_ids"], p["chosen_ids"], p["rejected_ids"]) for p in PAIRS[:pairs]]
    base = reference_logprobs(reference, chosen, rows=3)
    ours = pair_losses(policy, chosen, base, beta=0.3, **settings).mean()
    ours.backward()
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()

    arguments = trl.DPOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        loss_type=[kind],
        label_smoothing=settings.get("label_smoothing", 0.0),
        disable_dropout=True,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    text = Dataset.from_list([{"prompt": "the film", "chosen": " is dull", "rejected": " is superb"}])
    trainer = trl.DPOTrainer(
        policy, ref_model=reference, args=arguments, train_dataset=text, processing_class=tokenizer
    )
    collate = trl.trainer.dpo_trainer.DataCollatorForPreference(pad_token_id=0)
    theirs = trainer.compute_loss(trainer.model, collate(PAIRS[:pairs]))
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    found = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    assert found.keys() == gradients.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-5), name
