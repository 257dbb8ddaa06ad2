"""Stage: a linear probe as reward model. Reads labelled examples and a language model; writes `probe.json` and
`probe.safetensors`.

    tilt run goal=[proxy]

Logistic regression on one state a text: a few hundred labels are enough.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

from stages.errors import BadInput
from stages.learn.rewards.examples import binary_labels, heldout_metrics, read_parts
from stages.learn.rewards.folder import read_settings, write_settings
from stages.learn.trunk import Trunk
from stages.learn.values.scalar_head import fingerprint
from stages.records import Prompt
from stages.reward import judged_texts
from stages.runtime import Runtime

POOLINGS = ("mean", "last")


def pooled_states(
    trunk: Trunk, texts: Sequence[str], pooling: str, rows: int = 64, told: Callable[[int], None] | None = None
) -> np.ndarray:
    """(N, D) float64: one state a text, the mean over its tokens or that of its last. Batches by length."""
    sequences = [trunk.encode(text) for text in texts]
    features = np.zeros((len(texts), trunk.size))
    for done, (index, states) in enumerate(trunk.states(sequences, rows), 1):  # (S, D)
        chosen = states[-1] if pooling == "last" else states[min(1, len(states) - 1) :].mean(dim=0)
        features[index] = chosen.double().numpy()
        if told is not None and done % rows == 0:
            told(done)
    return features


@dataclass
class Probe:
    """Standardised features, then logistic regression with an L2 penalty."""

    examples: Path
    """Payload of stage `prompts`: `examples.parquet`."""
    model: Path
    """Folder of the language model whose states are read."""
    part: str = "proxy"
    heldout: str = "gold_heldout"
    layer: int = 20
    """Index into the model's hidden states; 0 is the embeddings."""
    pooling: str = "last"
    """`last` token's state, which has seen the whole text, or the `mean` over its tokens."""
    C: float = 0.01
    """Inverse strength of the penalty; small, for there are more features than examples."""
    dtype: str = "bfloat16"
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput on an unknown layer or pooling, an empty part, or labels that are all the same."""
        if self.pooling not in POOLINGS:
            raise BadInput("pooling", f"{self.pooling!r} is no pooling; choose one of {', '.join(POOLINGS)}")
        train, heldout = read_parts(self.examples, self.part, self.heldout)
        device = self.runtime.device
        trunk = Trunk(Path(self.model), layer=self.layer, dtype=self.dtype, device=device)
        texts = [example.text for example in train + heldout]
        features = pooled_states(
            trunk,
            texts,
            self.pooling,
            self.runtime.rows,
            lambda done: self.runtime.progress(done, len(texts), "texts read"),
        )  # (N, D)
        mean, sd = features[: len(train)].mean(axis=0), features[: len(train)].std(axis=0) + 1e-6
        model = LogisticRegression(C=self.C, max_iter=2000, random_state=self.seed)
        model.fit((features[: len(train)] - mean) / sd, binary_labels(train))
        weight = model.coef_[0] / sd  # the standardisation, folded in
        bias = model.intercept_ - weight @ mean  # (1,)
        save_file({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}, out / "probe.safetensors")
        settings = {
            "layer": self.layer,
            "pooling": self.pooling,
            "dtype": self.dtype,
            "trunk": fingerprint(Path(self.model)),
        }
        write_settings(out, "probe", settings)
        self.runtime.progress(len(texts), len(texts), "texts read")
        self.runtime.metrics(heldout_metrics(features[len(train) :] @ weight + bias[0], heldout, len(train)))


@dataclass
class ProbeReward:
    """A trained probe: its logit of opening + response."""

    folder: Path
    """Payload of stage `probe`."""
    model: Path
    """The language model that the probe was trained on; another one is refused."""
    device: str = "cpu"

    @cached_property
    def _probe(self) -> tuple[Trunk, str, np.ndarray, float]:
        folder, model = Path(self.folder), Path(self.model)
        settings = read_settings(folder, "probe")
        trunk = Trunk(model, layer=settings["layer"], dtype=settings["dtype"], device=self.device)
        if settings["trunk"] != fingerprint(model):
            raise BadInput("model", f"{model} is not the model that the probe in {folder} was trained on")
        arrays = load_file(folder / "probe.safetensors")
        return trunk, settings["pooling"], arrays["weight"].numpy(), float(arrays["bias"][0])

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """(N,) float64, log p(good) − log p(bad)."""
        trunk, pooling, weight, bias = self._probe
        return pooled_states(trunk, judged_texts(prompts, responses), pooling) @ weight + bias  # (N, D) @ (D,)

    def cost(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) tokens and (N,) FLOPs (`reward.Costed`): the layers up to the one that is read, then one product."""
        trunk, _, weight, _ = self._probe
        lengths = [len(trunk.encode(text)) for text in judged_texts(prompts, responses)]
        return np.array(lengths, dtype=np.int64), trunk.flops(lengths) + 2.0 * (len(weight) + 1)
