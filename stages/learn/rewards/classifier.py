"""Stage: an encoder fine-tuned as reward model. Reads labelled examples and a sentence encoder; writes the fine-tuned
encoder (a Hugging Face folder) with `classifier.json`, `classifier.safetensors` (its linear head) and README.md.

    tilt run goal=[gold]
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from stages.engine.language_model import require_model_folder
from stages.learn.cards import model_card, table
from stages.learn.flops import reading_flops
from stages.learn.loop.batches import length_batches
from stages.learn.loop.trainer import Module, Trainer, fit, machines_of, seeded
from stages.learn.rewards.examples import binary_labels, heldout_metrics, read_parts
from stages.learn.rewards.folder import read_settings, write_settings
from stages.learn.trunk import padded
from stages.records import Prompt
from stages.reward import judged_texts
from stages.runtime import Runtime


def load_encoder(folder: Path, device: str, field: str) -> tuple[Any, Any]:
    """(model, tokenizer) of an encoder folder, fp32. Raises BadInput where the folder is not complete."""
    from transformers import AutoModel, AutoTokenizer

    require_model_folder(folder, field)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.to(device).eval(), tokenizer


class Scorer(nn.Module):
    """Encoder, mean over the tokens, one linear output: the logit of "good"."""

    def __init__(self, encoder: nn.Module, size: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(size, 1)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (b,) of token ids and mask (b, S)."""
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state  # (b, S, D)
        weight = mask[..., None].to(states.dtype)
        pooled = (states * weight).sum(1) / weight.sum(1)  # (b, D)
        return self.head(pooled).squeeze(-1)  # (b,)

    @torch.inference_mode()
    def logits(self, encoded: Sequence[Sequence[int]], rows: int) -> np.ndarray:
        """(N,) float64, in batches of like length."""
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found = np.zeros(len(encoded))
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            found[batch] = self(*padded([encoded[i] for i in batch], self.head.weight.device)).double().cpu().numpy()
        return found


class _Training(Module):
    def __init__(self, scorer: Scorer, encoded: list[list[int]], labels: np.ndarray, learning_rate: float) -> None:
        super().__init__(terms=[1.0] * len(encoded), learning_rate=learning_rate, weight_decay=0.01)
        self.scorer = scorer
        self.encoded = encoded
        self.labels = torch.from_numpy(labels).float()

    def loss(self, indices: list[int]) -> torch.Tensor:
        ids, mask = padded([self.encoded[i] for i in indices], self.device)
        labels = self.labels[indices].to(self.device)
        return F.binary_cross_entropy_with_logits(self.scorer(ids, mask).float(), labels, reduction="sum")


@dataclass
class Classifier:
    """Binary cross-entropy on all weights but the word embeddings, without dropout."""

    examples: Path
    """Payload of stage `prompts`: `examples.parquet`."""
    encoder: Path
    """Folder of the sentence encoder."""
    part: str = "gold"
    heldout: str = "gold_heldout"
    epochs: float = 1.0
    learning_rate: float = 1e-4
    batch_size: int = 32
    """Texts in one optimiser step."""
    max_tokens: int = 64
    """Longer texts are cut."""
    seed: int = 0
    trainer: Trainer = field(default_factory=lambda: Trainer(precision="bf16-mixed"))
    """Weights and scores are float32 in any case."""
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput on an incomplete encoder folder, an empty part, or labels that are all the same."""
        machines_of(self.runtime, self.trainer)
        train, heldout = read_parts(self.examples, self.part, self.heldout)
        encoder, tokenizer = load_encoder(Path(self.encoder), self.runtime.device, "encoder")
        texts = [example.text for example in train + heldout]
        encoded = list(tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"])
        encoder.get_input_embeddings().weight.requires_grad_(False)  # half of all weights, and one epoch moves few
        if isinstance(pooler := getattr(encoder, "pooler", None), nn.Module):
            pooler.requires_grad_(False)  # not read, so without a gradient that processes could share
        with seeded(self.seed):
            scorer = Scorer(encoder, int(encoder.config.hidden_size)).to(self.runtime.device)
            lengths = [len(ids) for ids in encoded[: len(train)]]
            batches = length_batches(lengths, self.batch_size, self.epochs, self.seed)
            training = _Training(scorer, encoded, binary_labels(train + heldout), self.learning_rate)
            held = range(len(train), len(encoded))
            trained = fit(training, batches, self.runtime, trainer=self.trainer, heldout=held)
        if self.runtime.rank:
            return
        scorer.eval()
        metrics = heldout_metrics(scorer.logits(encoded[len(train) :], self.runtime.rows), heldout, len(train))
        metrics |= {"steps": float(trained.steps)}
        encoder.save_pretrained(out)
        tokenizer.save_pretrained(out)
        head = {name: tensor.detach().cpu().contiguous() for name, tensor in scorer.head.state_dict().items()}
        save_file(head, out / "classifier.safetensors")
        write_settings(out, "classifier", {"max_tokens": self.max_tokens})
        about = (
            f"A sentence encoder (`{Path(self.encoder).name}`), fine-tuned to tell good texts from bad ones with a "
            "linear head on the mean of its states (`classifier.safetensors`). The encoder opens with "
            "`from_pretrained`, the reward with `stages.learn.rewards.classifier.ClassifierReward(folder)`."
        )
        rows = f"{len(train)} labelled texts of part `{self.part}`; {len(heldout)} of `{self.heldout}` only measure"
        data = [table(Path(self.examples) / "examples.parquet", rows)]
        (out / "README.md").write_text(model_card("Reward model", about, data, self, metrics), encoding="utf-8")
        self.runtime.metrics(metrics)


@dataclass
class ClassifierReward:
    """A trained classifier: its logit of opening + response."""

    folder: Path
    """Payload of stage `classifier`."""
    device: str = "cpu"

    @cached_property
    def _model(self) -> tuple[Scorer, Any, int]:
        folder = Path(self.folder)
        settings = read_settings(folder, "classifier")
        encoder, tokenizer = load_encoder(folder, self.device, "folder")
        scorer = Scorer(encoder, int(encoder.config.hidden_size))
        scorer.head.load_state_dict(load_file(folder / "classifier.safetensors"))
        return scorer.to(self.device).eval(), tokenizer, int(settings["max_tokens"])

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """(N,) float64, log p(good) − log p(bad)."""
        scorer, _, _ = self._model
        return scorer.logits(self._encoded(prompts, responses), rows=64)

    def cost(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) tokens and (N,) FLOPs (`reward.Costed`): all layers of the encoder, then one product."""
        scorer, _, _ = self._model
        lengths = [len(ids) for ids in self._encoded(prompts, responses)]
        encoder: Any = scorer.encoder
        read = reading_flops(encoder, encoder.config.num_hidden_layers, lengths, causal=False)
        return np.array(lengths, dtype=np.int64), read + 2.0 * sum(p.numel() for p in scorer.head.parameters())

    def _encoded(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[list[int]]:
        """Token ids of opening + response, cut as in training."""
        _, tokenizer, max_tokens = self._model
        if not len(responses):
            return []
        texts = judged_texts(prompts, responses)
        return list(tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"])
