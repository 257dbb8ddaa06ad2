"""What every reward model is held to, and prompts for it to judge."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from stages.records import Prompt
from stages.reward import Reward

TEXTS = ["the film is superb", "the film is dull", "", "the plot is thin and old and the music is empty noise"]


def prompts_opened_by(openings: Sequence[str]) -> list[Prompt]:
    return [Prompt(id=str(i), part="test", text="review: " + o, opening=o) for i, o in enumerate(openings)]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """A good one, a bad one, an empty one and a long one."""
    return TEXTS


@pytest.fixture(scope="session")
def opened() -> Callable[[Sequence[str]], list[Prompt]]:
    """`opened(openings)`: prompts that already hold the first words of the response."""
    return prompts_opened_by


@pytest.fixture(scope="session")
def score() -> Callable[[Reward, Sequence[str]], np.ndarray]:
    """`score(reward, texts)`: scores of whole texts, without an opening."""
    return lambda reward, texts: reward.score(prompts_opened_by([""] * len(texts)), texts)


@pytest.fixture(scope="session")
def check_reward(score: Callable[[Reward, Sequence[str]], np.ndarray]) -> Callable[[Reward], None]:
    """Every reward: one float64 a response, sign by content, opening and response read as one, no batch effects."""

    def check(reward: Reward) -> None:
        scores = score(reward, TEXTS)
        assert scores.shape == (4,)
        assert scores.dtype == np.float64
        assert scores[0] > 0 > scores[1]
        assert np.isfinite(scores).all()
        assert reward.score(prompts_opened_by(["the film"]), [" is superb"])[0] == pytest.approx(scores[0], abs=1e-5)
        alone = [score(reward, [text])[0] for text in TEXTS]
        assert scores == pytest.approx(alone, abs=1e-5)
        assert reward.score([], []).shape == (0,)

    return check
