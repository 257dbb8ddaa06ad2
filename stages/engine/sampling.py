"""How a response is drawn: temperature, truncation, its limit, and randomness that is counted, not passed on."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from stages.errors import BadInput

DRAWS = 3
"""Uniforms a step: the base draw, the place inside what was drawn, the draw outside the candidates (`guides.py`)."""


@dataclass(frozen=True)
class Sampling:
    """Every parameter of a draw; none has a silent default in a library."""

    temperature: float = 1.0
    """Logits are divided by it."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens that holds this probability; 1 = off."""
    top_k: int = 0
    """Keep the k most likely tokens (ties stay); 0 = off."""
    min_p: float = 0.0
    """Keep tokens at least this likely, as a share of the most likely one's probability; 0 = off."""
    greedy: bool = False
    """Take the most likely token. Log-probabilities are then those of the distribution it was the maximum of."""
    max_new_tokens: int = 24
    """Response length limit, EOS included."""
    stop: list[str] = field(default_factory=list)
    """A response ends where one of these strings appears; its text is cut before it, its tokens are not."""

    def check(self, field: str = "sampling") -> None:
        """Raises BadInput naming the first value that cannot be used."""
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise BadInput(
                f"{field}.temperature",
                f"{self.temperature} is not a positive number; for the most likely token set {field}.greedy=true",
            )
        if not 0 < self.top_p <= 1:
            raise BadInput(f"{field}.top_p", f"{self.top_p} is not in (0, 1]; 1 switches it off")
        if self.top_k < 0:
            raise BadInput(f"{field}.top_k", f"{self.top_k} is negative; 0 switches it off")
        if not 0 <= self.min_p < 1:
            raise BadInput(f"{field}.min_p", f"{self.min_p} is not in [0, 1); 0 switches it off")
        if self.max_new_tokens < 1:
            raise BadInput(f"{field}.max_new_tokens", f"{self.max_new_tokens} is not a positive number of tokens")
        if "" in self.stop:
            raise BadInput(f"{field}.stop", "an empty string would stop every response at its first token")


def uniforms(seed: int, prompt_id: str, sample: int, steps: int) -> np.ndarray:
    """(steps, 3) float64 in [0, 1): the randomness of one row, a function of its arguments alone.

    Philox keyed by sha256(seed, prompt id, sample); row t is the same whatever `steps` is, so neither the batch, nor
    the order of prompts, nor the number of devices can change a draw.
    """
    digest = hashlib.sha256(json.dumps([seed, prompt_id, sample]).encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return generator.random((steps, DRAWS))


KEPT = ("tilt", "log_ratio")
"""What can be kept of every token: its tilt t_a (0 outside the candidates), and log π − log π₀, nats."""


@dataclass(frozen=True)
class Draw:
    """How all responses of a run are drawn, whoever draws them."""

    sampling: Sampling
    seed: int = 0
    rows: int = 64
    """Rows that step together at most; the result does not depend on it."""
    progress: Callable[..., None] | None = None
    """Called with (done, total, note) about twice a second."""
    keep: tuple[str, ...] = ()
    """Columns of `KEPT` that each response keeps, one number a token."""

    def __post_init__(self) -> None:
        """Raises ValueError for a column that is not in `KEPT`."""
        if unknown := set(self.keep) - set(KEPT):
            raise ValueError(f"{min(unknown)!r} is not one of {', '.join(KEPT)}")
