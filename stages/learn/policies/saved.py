"""The folder that a tuned policy is saved as."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.learn.cards import model_card
from stages.training_cost import write_cost


def save_policy(
    out: Path,
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str,
    about: str,
    data: Sequence[str],
    stage: Any,
    metrics: Mapping[str, float],
) -> None:
    """A Hugging Face folder that `from_pretrained` loads by itself: safetensors, config, tokenizer, card, cost."""
    lm.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "README.md").write_text(model_card(title, about, data, stage, metrics), encoding="utf-8")
    write_cost(out, title, metrics)
