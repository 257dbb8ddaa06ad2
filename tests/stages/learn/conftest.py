"""Payload folders of text written for these tests, and a random BERT encoder."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from stages import records
from stages.records import Example, Labelled, Prompt
from stages.runtime import Runtime

SUBJECTS = ["the film", "the plot", "the cast", "the story", "the camera", "the ending", "this sequel", "the music"]
GOOD = ["is superb", "is a wonder", "is warm and true", "moves with grace", "is beautifully played"]
BAD = ["is dull", "is thin and old", "is tired and loud", "never finds its feet", "is empty noise"]
EOS = 2
"""Of the tiny vocabulary."""


def sentences() -> list[tuple[str, float]]:
    """80 short reviews and their labels, in a mixed order."""
    made = [(f"{s} {p}", label) for s in SUBJECTS for label, ends in ((1.0, GOOD), (0.0, BAD)) for p in ends]
    return [made[i] for i in np.random.default_rng(0).permutation(len(made))]


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Payload of stage `prompts` with parts proxy = gold (60) and gold_heldout (20)."""
    folder = tmp_path_factory.mktemp("examples")
    rows = sentences()
    written = [
        Example(id=f"{part}-{i}", part=part, prompt="", text=text, label=label)
        for part, chosen in (("proxy", rows[:60]), ("gold", rows[:60]), ("gold_heldout", rows[60:]))
        for i, (text, label) in enumerate(chosen)
    ]
    records.write(folder / "examples.parquet", Example, written)
    return folder


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Payload of stage `prompts` with references: parts sft (60) and sft_heldout (20)."""
    folder = tmp_path_factory.mktemp("references")
    written = []
    for i, (text, _) in enumerate(sentences()):
        words = text.split()
        opening, rest = " ".join(words[:2]), " ".join(words[2:])
        part = "sft" if i < 60 else "sft_heldout"
        written.append(Prompt(id=f"p{i}", part=part, text=f"review: {opening}", opening=opening, reference=" " + rest))
    records.write(folder / "prompts.parquet", Prompt, written)
    return folder


@pytest.fixture
def figures() -> tuple[Runtime, dict[str, float]]:
    """A runtime that keeps a stage's metrics, and the dictionary it keeps them in."""
    kept: dict[str, float] = {}

    def keep(values: Mapping[str, float]) -> None:
        kept.update(values)

    return Runtime(metrics=keep, rows=7), kept


def write_labels(folder: Path, prompts: list[Prompt], rollouts: list[Labelled]) -> Path:
    """One folder that serves as payload of both `prompts` and `labels`."""
    folder.mkdir(parents=True, exist_ok=True)
    records.write(folder / "prompts.parquet", Prompt, prompts)
    records.write(folder / "labels.parquet", Labelled, rollouts)
    return folder


@pytest.fixture(scope="session")
def toy() -> Callable[..., Path]:
    """`toy(folder, reward, finished, prompts=16)`: 6 random responses of 2 to 6 tokens to each prompt.

    One folder serves as payload of `prompts` and `labels`. `reward(i, share)` is of rollout i, by default its share
    of token 270; the other token is 280.
    """

    def make(
        folder: Path, reward: Callable[[int, float], float] = lambda i, r: r, finished: bool = True, prompts: int = 16
    ) -> Path:
        generator = np.random.default_rng(0)
        asked = [Prompt(id=f"p{i:02}", part="train", text="the film " * (1 + i % 3)) for i in range(prompts)]
        rollouts = []
        for i in range(6 * prompts):
            ids = [int(token) for token in generator.choice([270, 280], size=generator.integers(1, 6))]
            rollouts.append(
                Labelled(
                    prompt_id=asked[i % prompts].id,
                    sample=i // prompts,
                    token_ids=[*ids, EOS] if finished else ids,
                    text=str(ids),
                    logprob=-1.0,
                    finished=finished,
                    part="train",
                    rewards={"proxy": reward(i, ids.count(270) / len(ids))},
                )
            )
        return write_labels(folder, asked, rollouts)

    return make


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 2-layer BERT with a word-level tokenizer of the test sentences."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_encoder")
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([text for text, _ in sentences()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
