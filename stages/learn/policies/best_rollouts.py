"""Stage: references out of rollouts. Reads labelled rollouts and their prompts; writes `prompts.parquet`
(records.Prompt) in which each prompt's reference is one of its best-ranked responses.

    tilt run goal=[best_rollouts]

Fine-tuning on them (`sft.py`) is the simplest way to a tuned model beside π₀.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stages import records
from stages.asked import asked_prompts
from stages.errors import BadInput
from stages.records import Labelled, Prompt
from stages.runtime import Runtime
from stages.training_cost import rollouts_cost, write_cost


@dataclass
class BestRollouts:
    """The `best` responses of each prompt by one reward, as its references."""

    labels: Path
    """Payload of stage `labels`."""
    prompts: Path
    """Payload of stage `prompts`."""
    reward: str = "proxy"
    best: int = 2
    """Responses kept a prompt; equal texts count once."""
    heldout: float = 0.1
    """Share of the prompts that only measure: their part is `best_heldout`, that of the others `best`."""
    runtime: Runtime = field(default_factory=Runtime)

    def run(self, out: Path) -> None:
        """Raises BadInput for an unknown reward, a share without prompts, or no response to keep."""
        if self.best < 1:
            raise BadInput("best", f"{self.best} is not a positive number of responses")
        labelled = records.read(Path(self.labels) / "labels.parquet", Labelled)
        by_prompt: dict[str, list[Labelled]] = {}
        for row in labelled:
            if self.reward not in row.rewards:
                names = ", ".join(row.rewards) or "none"
                raise BadInput("reward", f"{self.reward!r} is not a reward of the labels; there are {names}")
            if row.text.strip():
                by_prompt.setdefault(row.prompt_id, []).append(row)
        prompts = asked_prompts(self.prompts, (row for rows in by_prompt.values() for row in rows))
        order = sorted(by_prompt)
        count = round(self.heldout * len(order))
        if not 0 < count < len(order):
            raise BadInput("heldout", f"{self.heldout} of {len(order)} prompts leaves one side without any")
        chosen, kept, every = [], [], []
        for index, name in enumerate(order):
            part = "best_heldout" if index < count else "best"
            ranked = sorted(by_prompt[name], key=lambda row: (-row.rewards[self.reward], row.sample))
            distinct = list({row.text: row for row in reversed(ranked)}.values())[::-1][: self.best]
            every += [row.rewards[self.reward] for row in ranked]
            for place, row in enumerate(distinct):
                kept.append(row.rewards[self.reward])
                chosen.append(replace(prompts[name], id=f"{name}-{place}", part=part, reference=row.text))
        records.write(out / "prompts.parquet", Prompt, chosen)
        write_cost(out, "rollouts", rollouts_cost(self.labels))
        means = {f"{self.reward}_kept": float(np.mean(kept)), f"{self.reward}_all": float(np.mean(every))}
        self.runtime.metrics({"references": float(len(chosen)), **means})
