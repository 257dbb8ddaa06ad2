"""What generations are worth: rewards by name, and how varied and how long the responses are.

Reads `generations.parquet` (records.Generation) and `prompts.parquet`; writes `scores.parquet` (records.Score), one
row a generation, in the same order. Alone: `tilt run goal=[score]`.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stages import records
from stages.asked import asked_prompts
from stages.errors import BadInput
from stages.records import Generation, Prompt, Score
from stages.reward import scored
from stages.runtime import Runtime

_WORD = re.compile(r"[\w'’-]+")


@dataclass
class ScoreGenerations:
    """Applies every reward to every generation.

    Raises BadInput for `generations` and `prompts` that are missing or do not belong together, and for
    `rewards.<name>` where a reward is no `Reward`, returns another number of scores, or one that is not finite.
    """

    generations: Path
    prompts: Path
    rewards: dict[str, Any]
    """Name → Reward. `proxy` guided, or could have; `gold` never guides, selects or trains."""
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        try:
            generations = records.read(Path(self.generations) / "generations.parquet", Generation)
        except (FileNotFoundError, ValueError) as error:
            raise BadInput("generations", str(error).splitlines()[0]) from error
        if not generations:
            raise BadInput("generations", f"{self.generations} holds no generations")
        by_id = asked_prompts(self.prompts, generations, "generations")
        asked = [by_id[g.prompt_id] for g in generations]
        texts = [g.text for g in generations]
        rewards = {name: self._scored(name, asked, texts, done) for done, name in enumerate(self.rewards)}
        scores = [
            Score(
                prompt_id=g.prompt_id,
                part=g.part,
                sample=g.sample,
                method=g.method,
                settings=g.settings,
                prompt=prompt.text,
                text=g.text,
                rewards={name: float(values[row]) for name, values in rewards.items()},
                kl=g.kl,
                kl_kind=g.kl_kind,
                logprob=g.logprob,
                base_logprob=g.base_logprob,
                length=len(g.token_ids),
                finished=g.finished,
                distinct_2=distinct_2(g.text),
                repetition=repetition(g.text),
                tokens=g.tokens,
                flops=g.flops,
                seconds=g.seconds,
            )
            for row, (g, prompt) in enumerate(zip(generations, asked, strict=True))
        ]
        records.write(out / "scores.parquet", Score, scores)
        self.runtime.metrics(_means(scores))

    def _scored(self, name: str, asked: Sequence[Prompt], texts: Sequence[str], done: int) -> np.ndarray:
        """(N,) scores of one reward, asked for in portions so that progress shows."""
        portion, found = max(1, self.runtime.rows), []
        total = len(texts) * len(self.rewards)
        for start in range(0, len(texts), portion):
            some = texts[start : start + portion]
            found.append(scored(self.rewards[name], asked[start : start + portion], some, f"rewards.{name}"))
            self.runtime.progress(done * len(texts) + start + len(some), total, name)
        return np.concatenate(found)


def distinct_2(text: str) -> float:
    """Distinct bigrams of words ÷ bigrams of words; 1 where there are fewer than two words.

    >>> distinct_2("a good a good a film")  # a-good, good-a, a-good, good-a, a-film: 3 of 5
    0.6
    """
    words = _WORD.findall(text.casefold())
    bigrams = list(itertools.pairwise(words))
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0


def repetition(text: str) -> float:
    """Share of the text's word 4-grams that occurred before in it; 0 where there are fewer than four words.

    >>> repetition("one two one two one")  # 1212, 2121: no 4-gram twice
    0.0
    >>> repetition("so good so good so good so")  # sgsg, gsgs, sgsg, gsgs: the last two occurred before
    0.5
    """
    words = _WORD.findall(text.casefold())
    fours = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return 1 - len(set(fours)) / len(fours) if fours else 0.0


def _means(scores: Sequence[Score]) -> dict[str, float]:
    """Means by part, as `test/gold`; the comparison adds their intervals."""
    figures: dict[str, float] = {}
    for part in dict.fromkeys(score.part for score in scores):
        rows = [score for score in scores if score.part == part]
        for name in rows[0].rewards:
            figures[f"{part}/{name}"] = float(np.mean([score.rewards[name] for score in rows]))
        figures[f"{part}/length"] = float(np.mean([score.length for score in rows]))
        figures[f"{part}/distinct_2"] = float(np.mean([score.distinct_2 for score in rows]))
    return figures
