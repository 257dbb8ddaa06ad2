"""Stage: a bag-of-words reward model. Reads labelled examples; writes `tfidf.json` and `tfidf.safetensors`.

    tilt run goal=[tfidf]

It is cheap and easily fooled, which makes it a proxy that shows over-optimisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from stages.errors import BadInput
from stages.learn.rewards.examples import binary_labels, heldout_metrics, read_parts
from stages.learn.rewards.folder import read_settings, write_settings
from stages.records import Prompt
from stages.reward import judged_texts
from stages.runtime import Runtime


@dataclass
class Tfidf:
    """TF-IDF of words and word pairs, then logistic regression."""

    examples: Path
    """Payload of stage `prompts`: `examples.parquet`."""
    part: str = "proxy"
    heldout: str = "gold_heldout"
    C: float = 10.0
    """Inverse strength of the L2 penalty."""
    max_ngram: int = 2
    """Longest run of words that is a feature."""
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput where a part is empty, labels are all the same, or no term occurs in two texts."""
        train, heldout = read_parts(self.examples, self.part, self.heldout)
        settings = {"ngram_range": [1, self.max_ngram], "sublinear_tf": True}
        vectorizer = TfidfVectorizer(ngram_range=(1, self.max_ngram), sublinear_tf=True, min_df=2)
        try:
            features = vectorizer.fit_transform([example.text for example in train])  # (N, V)
        except ValueError as error:
            raise BadInput("part", f"part {self.part!r} has no word that occurs in two of its texts") from error
        self.runtime.progress(1, 2, f"{features.shape[1]} terms")
        model = LogisticRegression(C=self.C, max_iter=1000, random_state=self.seed)
        model.fit(features, binary_labels(train))
        terms = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
        write_settings(out, "tfidf", {"settings": settings, "terms": terms})
        arrays = {"idf": vectorizer.idf_, "weight": model.coef_[0], "bias": model.intercept_}
        save_file({name: np.ascontiguousarray(array, dtype=np.float64) for name, array in arrays.items()},
                  out / "tfidf.safetensors")  # fmt: skip
        logits = TfidfReward(out).logits([example.text for example in heldout])
        self.runtime.progress(2, 2, "held-out")
        self.runtime.metrics(heldout_metrics(logits, heldout, len(train)))


@dataclass
class TfidfReward:
    """A trained bag-of-words model: its logit of opening + response."""

    folder: Path
    """Payload of stage `tfidf`."""
    device: str = "cpu"

    @cached_property
    def _model(self) -> tuple[Any, np.ndarray, float]:
        folder = Path(self.folder)
        stored = read_settings(folder, "tfidf")
        arrays = load_file(folder / "tfidf.safetensors")
        vectorizer = TfidfVectorizer(
            ngram_range=tuple(stored["settings"]["ngram_range"]),
            sublinear_tf=stored["settings"]["sublinear_tf"],
            vocabulary={term: index for index, term in enumerate(stored["terms"])},
        )
        vectorizer.idf_ = arrays["idf"]
        return vectorizer, arrays["weight"], float(arrays["bias"][0])

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """(N,) float64 logits of plain texts."""
        vectorizer, weight, bias = self._model
        if not len(texts):
            return np.zeros(0)
        return np.asarray(vectorizer.transform(texts) @ weight + bias, dtype=np.float64)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """(N,) float64, log p(good) − log p(bad)."""
        return self.logits(judged_texts(prompts, responses))

    def cost(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) zeros twice (`reward.Costed`): counting words runs no model."""
        return np.zeros(len(responses), dtype=np.int64), np.zeros(len(responses))
