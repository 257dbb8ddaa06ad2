"""Labelled texts for reward models: reading two disjoint parts, and measuring on the one that was not trained on."""

from pathlib import Path

import numpy as np

from stages import records
from stages.errors import BadInput
from stages.records import Example


def read_parts(examples: Path, part: str, heldout: str) -> tuple[list[Example], list[Example]]:
    """Training and held-out examples of the payload of stage `prompts`.

    Raises BadInput where a part is empty, or where training examples do not show both labels.
    """
    everything = records.read(Path(examples) / "examples.parquet", Example)
    parts = []
    for field, name in (("part", part), ("heldout", heldout)):
        chosen = [example for example in everything if example.part == name]
        if not chosen:
            there = ", ".join(sorted({example.part for example in everything})) or "none"
            raise BadInput(field, f"there are no labelled examples in part {name!r}; the parts are: {there}")
        parts.append(chosen)
    if len(set(binary_labels(parts[0]).tolist())) < 2:
        raise BadInput("part", f"all {len(parts[0])} examples of part {part!r} have the same label; both are needed")
    return parts[0], parts[1]


def binary_labels(examples: list[Example]) -> np.ndarray:
    """(N,) int64: 1 for good, 0 for bad; a graded label counts as good from one half on."""
    return np.array([int(example.label >= 0.5) for example in examples], dtype=np.int64)


def heldout_metrics(logits: np.ndarray, examples: list[Example], trained: int) -> dict[str, float]:
    """Accuracy at logit 0 and area under the ROC curve on held-out examples; nan where they show one label only."""
    from sklearn.metrics import roc_auc_score

    labels = binary_labels(examples)
    both = 0 < labels.sum() < len(labels)
    return {
        "examples": float(trained),
        "heldout_examples": float(len(labels)),
        "heldout_accuracy": float(((logits > 0) == labels).mean()),
        "heldout_auc": float(roc_auc_score(labels, logits)) if both else float("nan"),
    }
