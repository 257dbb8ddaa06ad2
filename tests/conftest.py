"""Fixtures of the fast tests: a tiny random Llama with a real tokenizer, made here from text of our own; and a toy
project of small stages, in which `tilt` runs as a user would run it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOY = Path(__file__).parent / "toy"
SENTENCES = [
    "the film is a quiet wonder from start to finish",
    "a dull and noisy film that never finds its feet",
    "the cast is superb and the story moves with grace",
    "the plot is thin and the jokes are old",
    "an honest story told with warmth and patience",
    "two hours of noise without one good idea",
    "the camera loves the city and so will you",
    "a tired sequel that nobody asked for",
    "small and true and beautifully played",
    "loud and empty and far too long",
]


def build_tiny_model(
    folder: Path, *, seed: int = 0, layers: int = 3, hidden: int = 32, context: int = 256, vocabulary: int = 400
) -> Path:
    """A random fp32 Llama and a trained BPE tokenizer (EOS `<|im_end|>`, pad `<|endoftext|>`), saved as a HF folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # wide logits, so that sampling is far from uniform
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny_model"))


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[..., Path]:
    """`make_tiny_model(folder, seed=0, layers=3, hidden=32, context=256, vocabulary=400)` → the folder."""
    return build_tiny_model


class Toy:
    """The toy project at `path`; `tilt(...)` runs a command line and returns the completed process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.witness = path / "witness.txt"

    def command(self, verb: str, *arguments: str) -> list[str]:
        flags = ["--config-dir", str(self.path / "conf"), "--config-name", "toy"]
        return [str(Path(sys.executable).with_name("tilt")), verb, *flags, f"witness={self.witness}", *arguments]

    def environment(self) -> dict[str, str]:
        return os.environ | {"COLUMNS": "200"}

    def tilt(self, verb: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(verb, *arguments),
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def states(self, *arguments: str) -> dict[str, tuple[str, str]]:
        """(state, reason) of each stage, as `tilt plan` tells them."""
        planned = json.loads(self.tilt("plan", "--json", *arguments).stdout)
        return {stage["stage"]: (stage["state"], stage["reason"]) for stage in planned["stages"]}

    def executed(self) -> list[str]:
        """Words in the order in which stages were executed since the last call."""
        words = self.witness.read_text().split() if self.witness.exists() else []
        self.witness.unlink(missing_ok=True)
        return words


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    shutil.copytree(TOY, tmp_path / "toy", ignore=shutil.ignore_patterns("__pycache__"))
    return Toy(tmp_path / "toy")


@pytest.fixture
def edit() -> Callable[[Path, str, str], None]:
    def edit(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit
