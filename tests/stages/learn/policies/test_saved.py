"""The folder of a tuned policy."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.engine.language_model import load_model, load_tokenizer
from stages.learn.loop.trainer import Trainer
from stages.learn.policies.saved import save_policy


def test_it_opens_by_itself_and_says_what_it_is_and_what_it_cost(tmp_path: Path, tiny_model: Path):
    lm, tokenizer = load_model(tiny_model, dtype="float32", device="cpu"), load_tokenizer(tiny_model)
    metrics = {"train_flops": 8.0, "train_tokens": 3.0, "loss": 0.5}
    texts = {"title": "DPO policy", "about": "A test.", "data": ["three rollouts"]}
    save_policy(tmp_path, lm, tokenizer, **texts, stage=Trainer(clip=2.0), metrics=metrics)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path)("the film")["input_ids"]])
    assert torch.equal(again(input_ids=ids).logits, lm(input_ids=ids).logits)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("# DPO policy\n\nA test.\n")
    assert "- clip: 2.0" in card
    # of the metrics the cost alone; what they do not name is 0
    cost = json.loads((tmp_path / "training.json").read_text())
    assert cost == {
        "model": "DPO policy",
        "train_flops": 8.0,
        "train_tokens": 3.0,
        "rollout_flops": 0.0,
        "rollout_tokens": 0.0,
    }
