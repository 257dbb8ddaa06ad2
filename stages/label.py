"""Stage: rewards for rollouts. Reads rollouts and their prompts; writes `labels.parquet`, one column a reward model.

tilt run goal=[labels]
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages import records
from stages.asked import asked_prompts
from stages.errors import BadInput
from stages.records import Labelled, Prompt, Rollout
from stages.reward import Reward, scored
from stages.runtime import Runtime
from stages.shards import block, merge

FILE = "labels.parquet"


@dataclass
class Label:
    """Scores every rollout by every reward."""

    rollouts: Path
    """Payload of stage `rollouts`: `rollouts.parquet`."""
    prompts: Path
    """Payload of stage `prompts`: `prompts.parquet`."""
    rewards: dict[str, Reward]
    """Reward by the name of its column."""
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput where no reward is named, there are no rollouts or a prompt is missing, and what
        `reward.scored` raises."""
        labelled = self._labelled(None)
        records.write(Path(out) / FILE, Labelled, labelled)
        self._report(labelled)

    def run_shard(self, out: Path, index: int, count: int) -> None:
        """The labels of a consecutive part of the rollouts; of none where there are more shards than rollouts."""
        records.write(Path(out) / FILE, Labelled, self._labelled((index, count)))

    def merge(self, parts: list[Path], out: Path) -> None:
        """All shards' labels, as `run` would have written them."""
        self._report(merge(parts, out, FILE, Labelled))

    def _labelled(self, shard: tuple[int, int] | None) -> list[Labelled]:
        if not self.rewards:
            raise BadInput("rewards", "no reward is named; give at least one, such as rewards.proxy")
        everything = records.read(Path(self.rollouts) / "rollouts.parquet", Rollout)
        if not everything:
            raise BadInput("rollouts", "there are no rollouts to label")
        rollouts = block(everything, shard)
        prompts = asked_prompts(self.prompts, rollouts)
        columns = {
            name: self._scores(name, reward, rollouts, prompts, done * len(rollouts))
            for done, (name, reward) in enumerate(self.rewards.items())
        }  # (N,) each
        return [
            Labelled(
                **vars(rollout),
                part=prompts[rollout.prompt_id].part,
                rewards={name: float(column[i]) for name, column in columns.items()},
            )
            for i, rollout in enumerate(rollouts)
        ]

    def _report(self, labelled: list[Labelled]) -> None:
        metrics = {"rollouts": float(len(labelled)), "finished": float(np.mean([r.finished for r in labelled]))}
        for name in self.rewards:
            column = np.array([rollout.rewards[name] for rollout in labelled])  # (N,)
            metrics |= {f"{name}_mean": float(column.mean()), f"{name}_sd": float(column.std())}
        self.runtime.metrics(metrics)

    def _scores(
        self, name: str, reward: Reward, rollouts: Sequence[Rollout], prompts: dict[str, Prompt], done: int
    ) -> np.ndarray:
        """(N,) scores of one reward, in portions, so that progress is seen."""
        total = len(self.rewards) * len(rollouts)
        scores = np.empty(len(rollouts))
        # Like lengths go together: a portion of short responses is not padded to a long one by the reward model.
        order = sorted(range(len(rollouts)), key=lambda i: len(rollouts[i].text))
        for start in range(0, len(order), self.runtime.rows):
            portion = order[start : start + self.runtime.rows]
            chosen = [rollouts[i] for i in portion]
            asked = [prompts[r.prompt_id] for r in chosen]
            scores[portion] = scored(reward, asked, [r.text for r in chosen], f"rewards.{name}")
            self.runtime.progress(done + start + len(portion), total, name)
        return scores
