"""One call that opens a trained value model by itself: `load_value(folder, base)`.

from stages.learn.values.load import load_value

value = load_value("store/…/payload", "path/to/base")
value.score("Movie review: A tired", " sequel that nobody asked for.")   # (T+1, M): one row a prefix of the response
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stages.errors import BadInput
from stages.learn.trunk import Trunk
from stages.learn.values.head import ValueModel, load_head
from stages.learn.values.scalar_head import fingerprint


@dataclass
class Value:
    """A head with its trunk."""

    head: ValueModel
    trunk: Trunk

    def states(self, prompt: list[int], response: list[int]) -> np.ndarray:
        """Values in the rewards' own units, float64, of the states after 0 … T response tokens: (T+1, M).

        A head over the vocabulary knows a state by the token that led to it: its first row is nan.
        """
        (_, hidden), *_ = self.trunk.states([prompt + response], 1)
        hidden = hidden[len(prompt) - 1 :].to(self.head.mean.device)  # (T+1, D)
        with torch.inference_mode():
            tokens = torch.tensor(response, dtype=torch.long, device=hidden.device)  # (T,), T may be 0
            known = self.head.along(hidden, tokens)  # (T+1 or T, M)
            unknown = known.new_full((self.head.first_state, known.shape[1]), torch.nan)
            found = torch.cat([unknown, known])  # (T+1, M)
            return (self.head.mean + self.head.sd * found).double().cpu().numpy()

    def score(self, prompt: str, response: str) -> np.ndarray:
        """`states` of text, the prompt as the policy sees it."""
        tokenizer = self.trunk.tokenizer
        start = list(tokenizer(prompt)["input_ids"])
        return self.states(start, list(tokenizer(response, add_special_tokens=False)["input_ids"]))


def load_value(folder: Path | str, base: Path | str | None = None, device: str = "cpu") -> Value:
    """A value model from the folder that stage `value` wrote, and the trunk that it reads.

    `base` is the folder of π₀; it may be left out where the value has a model of its own (`model/` in its folder).
    Raises BadInput where the trunk is another than the head was trained on.
    """
    folder = Path(folder)
    head = load_head(folder, device, "folder")
    own = folder / "model"
    where = own if (own / "config.json").is_file() else None if base is None else Path(base)
    if where is None:
        raise BadInput("base", f"the value in {folder} reads π₀'s states; give the folder of π₀")
    if head.trunk != fingerprint(where):
        raise BadInput("base", f"{where} is not the model that the value in {folder} was trained on")
    return Value(head, Trunk(where, layer=head.layer, dtype=head.dtype or "float32", device=device))
