"""The scalar value head: from one hidden state of its trunk the value of that state, one output for each reward.

    V(s) is the expectation of (r − mean) / sd, so that β means the same for every reward.

Written by `stages/learn/values/train.py`; read by guides and scorers. The folder holds `value.json` (layer, rewards,
their mean and deviation, the trunk's fingerprint) and `value.safetensors` (the weights).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stages.errors import BadInput

HEADS = ("linear", "mlp")


def fingerprint(folder: Path) -> str:
    """sha256 over the contents of the folder's *.safetensors in the order of their names: which trunk this is."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


class ValueHead(nn.Module):
    """Values of M rewards from a hidden state, linear or with one hidden layer.

    `layer` indexes the model's `hidden_states`: 0 is the embeddings, the number of layers is the state after the final
    norm. `mean` and `sd`, (M,), are the training rewards' own: reward = mean + sd · value. `dtype` is the trunk's while
    the head was trained (its states differ in another), `target` what it was trained on: `fudge` gives logits, to be
    used as log σ. The output layer starts at zero, so that an untrained head tilts nothing.
    """

    first_state = 0
    over_vocabulary = False
    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(
        self,
        *,
        size: int,
        rewards: Sequence[str],
        layer: int,
        head: str = "linear",
        width: int = 256,
        trunk: str = "",
        dtype: str = "",
        target: str = "td_lambda",
    ) -> None:
        super().__init__()
        self.dtype, self.target = dtype, target
        if head not in HEADS:
            raise BadInput("head", f"{head!r} is no kind of value head; choose one of {', '.join(HEADS)}")
        self.layer = layer
        self.rewards = tuple(rewards)
        self.trunk = trunk
        self.head = head
        self.size = size
        self.width = width
        inner = size if head == "linear" else width
        self.first = None if head == "linear" else nn.Linear(size, width)
        self.last = nn.Linear(inner, len(self.rewards))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("mean", torch.zeros(len(self.rewards)))
        self.register_buffer("sd", torch.ones(len(self.rewards)))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Values in z-scored reward units, fp32: (..., D) → (..., M)."""
        hidden = hidden.float()
        if self.first is not None:
            hidden = torch.nn.functional.gelu(self.first(hidden))  # (..., width)
        return self.last(hidden)  # (..., M)

    def along(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(..., T+1, M) values of s₀ … s_T from their states (..., T+1, D); the tokens between them are not read."""
        return self(hidden)

    @torch.no_grad()
    def fold(self, mean: torch.Tensor, sd: torch.Tensor) -> None:
        """Moves a standardisation of the features, (D,) each, into the first weights.

        W·(h − mean)/sd + b = (W/sd)·h + (b − (W/sd)·mean): afterwards the head takes raw hidden states.
        """
        layer = self.last if self.first is None else self.first
        layer.weight.div_(sd)  # (width | M, D)
        layer.bias.sub_(layer.weight @ mean)

    def save(self, folder: Path) -> None:
        """Writes `value.json` and `value.safetensors`."""
        settings = {
            "dtype": self.dtype,
            "head": self.head,
            "layer": self.layer,
            "rewards": list(self.rewards),
            "size": self.size,
            "target": self.target,
            "trunk": self.trunk,
            "width": self.width,
        }
        write_head(folder, settings, self)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", field: str = "value") -> "ValueHead":
        """Reads what `save` wrote, in evaluation mode. Raises BadInput where the folder holds no value model."""
        path = Path(folder) / "value.json"
        if not path.is_file():
            raise BadInput(
                field, f"{folder} holds no value model (value.json is missing); train one with stage `value`"
            )
        model = cls(**json.loads(path.read_text(encoding="utf-8")))
        read_weights(folder, model)
        return model.to(device).eval().requires_grad_(False)


def write_head(folder: Path, settings: Mapping[str, Any], head: nn.Module) -> None:
    """A head of either kind: what it is in `value.json`, its tensors in `value.safetensors`."""
    (Path(folder) / "value.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(state, Path(folder) / "value.safetensors")


def read_weights(folder: Path, head: nn.Module) -> None:
    """The tensors that `write_head` wrote, into a head of the same settings."""
    head.load_state_dict(load_file(Path(folder) / "value.safetensors"))
