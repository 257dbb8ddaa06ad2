"""Labelled rollouts as the learning stages read them. What cannot be learnt from is refused with the reason."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages import records
from stages.asked import asked_prompts
from stages.errors import BadInput
from stages.records import Labelled, Prompt


def read_labels(labels: Path, prompts: Path, allow_truncated: bool) -> tuple[list[Labelled], dict[str, Prompt]]:
    """Rollouts and the prompts that they answer, by id.

    Raises BadInput where there are none, one's prompt is missing, or all were cut at the token limit.
    """
    rollouts = records.read(Path(labels) / "labels.parquet", Labelled)
    if not rollouts:
        raise BadInput("labels", "there are no labelled rollouts to learn from")
    known = asked_prompts(prompts, rollouts)
    if empty := [r for r in rollouts if not r.token_ids]:
        raise BadInput("labels", f"sample {empty[0].sample} of prompt {empty[0].prompt_id!r} has no tokens")
    if not allow_truncated and not any(r.finished for r in rollouts):
        raise BadInput(
            "labels",
            f"all {len(rollouts)} rollouts were cut at the token limit, so nothing shows how a response ends; set a "
            "larger sampling.max_new_tokens, or allow_truncated=true where responses are meant to be cut",
        )
    return rollouts, known


def reward_columns(rollouts: Sequence[Labelled], names: Sequence[str], field: str) -> np.ndarray:
    """(N, M) float64 rewards. Raises BadInput for a column that is not there or is empty, or a reward that is not
    finite."""
    if not names:
        raise BadInput(field, "no reward is named; give at least one of the labels' columns")
    there = rollouts[0].rewards
    for name in names:
        if name not in there:
            known = ", ".join(there) or "none"
            raise BadInput(field, f"the labels have no reward {name!r}; they have: {known}")
    found = [[r.rewards[name] for name in names] for r in rollouts]
    columns = np.array([[np.nan if x is None else x for x in row] for row in found], dtype=np.float64)
    if empty := [name for i, name in enumerate(names) if np.isnan(columns[:, i]).all()]:
        problem = f"reward {empty[0]!r} is empty: none of {len(rollouts)} rollouts has one; label them anew"
        raise BadInput("labels", problem)
    if not np.isfinite(columns).all():
        row, column = np.argwhere(~np.isfinite(columns))[0]
        bad = rollouts[row]
        raise BadInput(
            "labels",
            f"reward {names[column]!r} is {columns[row, column]} for sample {bad.sample} of prompt "
            f"{bad.prompt_id!r}; label the rollouts again with a reward that is a number for every text",
        )
    return columns


def spread(columns: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation, (M,) each, of rewards (N, M). Raises BadInput for a reward that has one value only."""
    mean, sd = columns.mean(0), columns.std(0)
    if constant := [name for name, deviation in zip(names, sd, strict=True) if deviation <= 1e-9]:
        raise BadInput("labels", f"reward {constant[0]!r} has one value on all training rollouts; nothing to learn")
    return mean, sd


def split_prompts(ids: Sequence[str], heldout: float, seed: int) -> set[str]:
    """The prompts that only measure: a share of them, at least one where `heldout` > 0.

    Raises BadInput for a share outside [0, 1), or where there is one prompt only and one is to be held out.
    """
    if not 0 <= heldout < 1:
        raise BadInput("heldout", f"{heldout} is no share of the prompts, from 0 to below 1")
    names = sorted(set(ids))
    if heldout == 0:
        return set()
    if len(names) < 2:
        raise BadInput("labels", "all rollouts answer one prompt; at least two are needed, one to measure on")
    kept = min(len(names) - 1, max(1, round(heldout * len(names))))
    return {names[i] for i in np.random.default_rng(seed).permutation(len(names))[:kept]}
