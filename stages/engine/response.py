"""What is decoded: a row while it is drawn, a response when it is done."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from stages.engine.sampling import Sampling


@dataclass
class Response:
    """One sample of one prompt. Stages make a record of it (`sample.py`, `decode.py`)."""

    prompt: int
    """Index into the prompts given to `Engine.run`."""
    sample: int
    token_ids: list[int] = field(default_factory=list)
    """(T,), EOS included."""
    text: str = ""
    logprob: float = 0.0
    """log π(y|x), nats, as sampled: temperature, truncation, tilt."""
    base_logprob: float = 0.0
    """log π₀(y|x), nats, as sampled: same temperature and truncation."""
    kl: float = 0.0
    """Sum of exact per-step KL(π ‖ π₀), nats."""
    finished: bool = False
    """By EOS or a stopping string, not by the limit."""
    tokens: int = 0
    """Tokens forwarded for it, candidates included, padding not; its prompt's count with the prompt's first row. A
    token counts once a model, through how many layers it goes is in the FLOPs. A reward that selects counts what it
    reads."""
    flops: float = 0.0
    seconds: float = 0.0
    """The run's wall time ÷ its responses."""
    betas: tuple[float, ...] | None = None
    """Strengths of its own, one for each of the guide's (`Steering.betas`); None: the guide's."""
    kept: dict[str, list[float]] = field(default_factory=dict)
    """(T,) each: the columns that `Draw.keep` names."""

    @property
    def stream(self) -> int:
        """Which of its prompt's streams of random numbers it follows."""
        return self.sample


def text_of(tokenizer: PreTrainedTokenizerBase, sampling: Sampling, token_ids: Sequence[int]) -> str:
    """A response as it is judged: without special tokens, cut before the first stopping string."""
    text = str(tokenizer.decode(list(token_ids), skip_special_tokens=True))
    found = [text.index(stop) for stop in sampling.stop if stop in text]
    return text[: min(found)] if found else text


def stops(tokenizer: PreTrainedTokenizerBase, sampling: Sampling, token_ids: Sequence[int]) -> bool:
    """Whether a stopping string stands at the end. A token is at least one byte: few need to be decoded."""
    if not sampling.stop:
        return False
    tail = max(len(stop.encode()) for stop in sampling.stop) + 4
    text = str(tokenizer.decode(list(token_ids)[-tail:], skip_special_tokens=True))
    return any(stop in text for stop in sampling.stop)
