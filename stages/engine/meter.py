"""What decoding costs: every forward is charged to the rows that it was made for, in tokens and FLOPs."""

from collections.abc import Sequence

from stages.engine.lane import Lane
from stages.engine.lanes import Lanes
from stages.engine.response import Response


def charge(rows: Sequence[Response], tokens: int, flops: Sequence[float]) -> None:
    """Adds `tokens` to each row, and its own of the `flops` (R,)."""
    for row, cost in zip(rows, flops, strict=True):
        row.tokens += tokens
        row.flops += cost


def charge_prompt(row: Response, lanes: Lanes) -> None:
    """The row's prompt in every lane."""
    row.tokens += sum(len(lane.prompts[row.prompt]) for lane in lanes.all)
    row.flops += sum(lane.prompt_flops(row.prompt) for lane in lanes.all)


def charge_step(rows: Sequence[Response], lane: Lane, width: int) -> None:
    """The forward of `width` alternative tokens a row that the lane is about to make."""
    charge(rows, width, lane.step_flops(width))
