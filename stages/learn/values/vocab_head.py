"""The value head over the vocabulary: from one hidden state of its trunk it scores every next token.

    Q(s, ·) = W·h(s) + b, Q(s, a) the value of the state after token a, in z-scored reward units   (arXiv 2409.17819)

One forward scores all tokens; a chunk's score is Q(prefix)[its last token]. Read by `VocabValue` and by the scorer
`Explicit` of `stages/decode`. The folder holds `value.json` (head `vocab`) and `value.safetensors`, as a scalar head's.
"""

import json
from pathlib import Path

import torch
from torch import nn

from stages.errors import BadInput
from stages.learn.values.scalar_head import read_weights, write_head


class VocabHead(nn.Module):
    """Values of all V next tokens for one reward. Starts at zero: an untrained head tilts nothing.

    `layer` indexes the trunk's `hidden_states` as in `ValueHead`; `mean` and `sd`, (1,), are the training reward's own;
    `dtype` is the trunk's while the head was trained, `target` what it was trained on.
    """

    first_state = 1
    over_vocabulary = True
    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(
        self,
        *,
        size: int,
        vocabulary: int,
        reward: str,
        layer: int,
        trunk: str = "",
        dtype: str = "",
        target: str = "td_lambda",
    ) -> None:
        super().__init__()
        self.dtype, self.target = dtype, target
        self.size, self.vocabulary, self.reward = size, vocabulary, reward
        self.layer, self.trunk = layer, trunk
        self.last = nn.Linear(size, vocabulary)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("sd", torch.ones(1))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Q(s, ·) in z-scored reward units, fp32: (..., D) → (..., V)."""
        return self.last(hidden.float())

    def taken(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Q(s, a) of one token a state: (..., D) and (...) → (...), without the other V − 1."""
        return (self.last.weight[tokens] * hidden.float()).sum(-1) + self.last.bias[tokens]

    def along(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(..., T, 1) values of s₁ … s_T, each read from the state before it: (..., T+1, D) and (..., T)."""
        return self.taken(hidden[..., :-1, :], tokens)[..., None]

    @property
    def rewards(self) -> tuple[str, ...]:
        """The one reward, as `ValueHead` names several."""
        return (self.reward,)

    @torch.no_grad()
    def fold(self, mean: torch.Tensor, sd: torch.Tensor) -> None:
        """Moves a standardisation of the features, (D,) each, into the weights, as `ValueHead.fold` does."""
        self.last.weight.div_(sd)  # (V, D)
        self.last.bias.sub_(self.last.weight @ mean)

    def save(self, folder: Path) -> None:
        """Writes `value.json` and `value.safetensors`."""
        settings = {
            "dtype": self.dtype,
            "head": "vocab",
            "layer": self.layer,
            "reward": self.reward,
            "size": self.size,
            "target": self.target,
            "trunk": self.trunk,
            "vocabulary": self.vocabulary,
        }
        write_head(folder, settings, self)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", field: str = "value") -> "VocabHead":
        """Reads what `save` wrote. Raises BadInput where the folder holds no vocabulary-wide value model."""
        if not is_vocab_head(folder):
            raise BadInput(field, f"{folder} holds no value head over the vocabulary; train one with head=vocab")
        settings = json.loads((Path(folder) / "value.json").read_text(encoding="utf-8"))
        settings.pop("head")
        model = cls(**settings)
        read_weights(folder, model)
        return model.to(device).eval().requires_grad_(False)


def is_vocab_head(folder: Path) -> bool:
    """Whether the folder's value model scores the whole vocabulary."""
    path = Path(folder) / "value.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("head") == "vocab"
