"""Which model's states a value head reads.

A head belongs to a trunk. That is the policy itself (frozen: the head reads what the policy computes anyway), or a
model of its own: the one named by `model`, or the folder `model/` beside the head. Where that is the policy with its
upper layers tuned, it shares the layers below (`stages/engine/fork.py`).
"""

from pathlib import Path
from typing import Protocol

from stages.engine.causal_lm import CausalLM
from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.errors import BadInput
from stages.learn.values.scalar_head import fingerprint


class Trained(Protocol):
    """What every head says of how it was trained."""

    layer: int
    trunk: str
    dtype: str
    target: str


def trunk_states(
    lanes: Lanes, folder: Path, model: CausalLM | None, head: Trained, field: str, *, eager: bool
) -> tuple[Lane, int]:
    """The lane whose states a head of `folder` reads, and which of the lane's states they are.

    Raises BadInput where the model is another than the head was trained on.
    """
    if model is None and (folder / "model" / "config.json").is_file():
        model = CausalLM(folder / "model", dtype=str(lanes.policy.lm.dtype).removeprefix("torch."))
    found = lanes.tap(model, head.layer, f"{field}.model", eager=eager)
    trunk = lanes.policy.lm.folder if model is None else Path(model.folder)
    if head.trunk != fingerprint(trunk):
        raise BadInput(
            f"{field}.folder",
            f"the value model in {folder} was trained on another trunk than {trunk}; "
            "train a value model for it, or name its own in `model`",
        )
    return found


def require_as_trained(head: Trained, lane: Lane, transform: str, field: str) -> None:
    """Raises BadInput where a head is read in another way than it was trained for."""
    if transform == "log_sigmoid" and head.target != "fudge":
        raise BadInput(
            f"{field}.transform",
            f"log_sigmoid takes FUDGE's logits, and this value was trained on {head.target}; train it on target fudge",
        )
    dtype = str(lane.lm.dtype).removeprefix("torch.")
    if head.dtype and head.dtype != dtype:
        raise BadInput(
            f"{field}.folder",
            f"the value was trained on states in {head.dtype} and would read them in {dtype}; use one dtype for both",
        )
