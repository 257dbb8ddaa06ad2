"""What training stages leave behind: policies and the reward's encoder that open without us, values by one documented
call, safetensors only, and a model card each."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages import records
from stages.engine.language_model import load_model
from stages.engine.sampling import Sampling
from stages.learn.loop.trainer import Trainer
from stages.learn.policies.dpo import Dpo
from stages.learn.policies.ppo import Ppo
from stages.learn.policies.sft import FineTune
from stages.learn.rewards.classifier import Classifier, ClassifierReward
from stages.learn.values.load import load_value
from stages.learn.values.train import TrainValue
from stages.records import Labelled, Prompt

EOS, GOOD, BAD = 2, 270, 280
POLICIES = ["sft", "dpo", "ppo"]
VALUES = ["value", "value_vocab", "value_lora"]


class Letters:
    """Reward: share of lower-case letters."""

    def score(self, prompts, responses) -> np.ndarray:
        return np.array([sum(c.islower() for c in r) / max(1, len(r)) for r in responses])


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_encoder: Path, references: Path, examples: Path
) -> Path:
    """A folder a stage, trained for two steps."""
    folder = tmp_path_factory.mktemp("saved")
    prompts = [Prompt(id=f"p{i}", part="train", text="the film") for i in range(6)]
    rollouts = [
        Labelled(
            prompt_id=f"p{i % 6}",
            sample=i // 6,
            token_ids=[token, token, EOS],
            text=str(token),
            logprob=-1.0,
            finished=True,
            part="train",
            rewards={"proxy": float(token == GOOD)},
        )
        for i, token in enumerate([GOOD] * 6 + [BAD] * 6)
    ]
    records.write(folder / "prompts.parquet", Prompt, prompts)
    records.write(folder / "labels.parquet", Labelled, rollouts)
    short: dict[str, Any] = {"trainer": Trainer(max_steps=2), "learning_rate": 1e-2}
    lora: dict[str, Any] = {"lora_rank": 4, "top_layers": 0, "dtype": "float32"} | short
    learnt: dict[str, Any] = {"labels": folder, "prompts": folder, "base": tiny_model}
    value: dict[str, Any] = learnt | short | {"layer": 2, "dtype": "float32", "heldout": 0.4}
    drawn: dict[str, Any] = {"batch_size": 8, "minibatch": 4, "value_width": 8, "sampling": Sampling(max_new_tokens=4)}
    stages = {
        "sft": FineTune(model=tiny_model, prompts=references, **lora),
        "dpo": Dpo(**learnt, **lora, heldout=0.4),
        "ppo": Ppo(prompts=folder, base=tiny_model, reward=Letters(), **drawn, **lora),
        "value": TrainValue(**value),
        "value_vocab": TrainValue(**value, head="vocab"),
        "value_lora": TrainValue(**value, lora_rank=4),
        "reward": Classifier(examples=examples, encoder=tiny_encoder, **short),
    }
    for name, stage in stages.items():
        (folder / name).mkdir()
        stage.run(folder / name)
    return folder


ALONE = """
import json, sys
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

found = {}
for path in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(path)
    kind = AutoModel if path.endswith("reward") else AutoModelForCausalLM
    model = kind.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        output = model(input_ids=torch.tensor([tokenizer("the film")["input_ids"]]))
    found[path] = float((output.last_hidden_state if kind is AutoModel else output.logits).sum())
ours = [name for name in sys.modules if name.split(".")[0] in ("stages", "pipeline", "sweeps", "conf")]
print(json.dumps([found, ours]))
"""


def test_policies_the_value_s_own_trunk_and_the_reward_s_encoder_open_in_a_process_without_us(
    saved: Path, tmp_path: Path
):
    folders = [saved / name for name in (*POLICIES, "value_lora/model", "reward")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, *map(str, folders)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, ours = json.loads(done.stdout)
    assert ours == []
    from transformers import AutoTokenizer

    for folder in folders[:-1]:
        ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("the film")["input_ids"]])
        here = load_model(folder, dtype="float32", device="cpu")(input_ids=ids).logits.sum()
        assert found[str(folder)] == pytest.approx(float(here), rel=1e-4)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_opens_by_the_call_that_its_card_names(saved: Path, tiny_model: Path, name: str):
    card = (saved / name / "README.md").read_text()
    assert "`stages.learn.values.load.load_value(folder, base)`" in card
    values = load_value(saved / name, tiny_model).score("the film", " is dull")
    assert values.shape[1] == 1
    assert np.isfinite(values[1:]).all()
    assert np.isfinite(values[0]).all() == (name != "value_vocab")  # it knows a state by the token that led to it


def test_the_reward_opens_by_the_call_that_its_card_names(saved: Path):
    assert "`stages.learn.rewards.classifier.ClassifierReward(folder)`" in (saved / "reward" / "README.md").read_text()
    scores = ClassifierReward(saved / "reward").score([Prompt(id="a", part="test", text="")], ["the film is dull"])
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("sft", r"60 prompts of part `sft` with references; 20 of `sft_heldout` only measure, from `prompts.parquet`"),
        ("dpo", r"12 labelled rollouts to 6 prompts of part `train`, those to 2 of the prompts only measure"),
        ("ppo", r"6 prompts of part `train`, from `prompts.parquet`"),
        *(
            (name, r"12 labelled rollouts to 6 prompts of part `train`, those to 2 .* `labels.parquet`")
            for name in VALUES
        ),
        ("reward", r"60 labelled texts of part `gold`; 20 of `gold_heldout` only measure, from `examples.parquet`"),
    ],
)
def test_each_has_safetensors_alone_and_a_card_with_data_configuration_and_metrics(saved: Path, name: str, data: str):
    files = [path for path in (saved / name).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".jinja"}
    assert any(path.suffix == ".safetensors" for path in files)
    card = (saved / name / "README.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)\n(?=\n|\Z)", card, flags=re.MULTILINE | re.DOTALL))
    assert re.search(rf"^- {data}", sections["Data"])
    assert re.search(r"\(sha256 [0-9a-f]{16}…\)", sections["Data"])
    assert "- learning_rate: 0.01" in sections["Configuration"]
    assert "- trainer: Trainer(precision=32, " in sections["Configuration"]
    assert re.search(r"^- [\w/]+: [-\d.e+]+$", sections["Measured"], flags=re.MULTILINE)
    assert str(saved) not in card
