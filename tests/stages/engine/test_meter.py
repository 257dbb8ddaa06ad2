"""What decoding costs: every forward is charged to the rows that it was made for."""

from types import SimpleNamespace
from typing import Any

import pytest

from stages.engine.meter import charge, charge_prompt, charge_step
from stages.engine.response import Response


def lane(prompts: list[list[int]], price: float) -> Any:
    """A prompt costs `price` a token; in a step row i costs (i + 1)·`price` for each alternative token."""
    return SimpleNamespace(
        prompts=prompts,
        prompt_flops=lambda prompt: price * len(prompts[prompt]),
        step_flops=lambda width: [price * width * (i + 1) for i in range(2)],
    )


def test_every_row_pays_its_own_flops_and_as_many_tokens() -> None:
    rows = [Response(0, 0, tokens=3, flops=1.0), Response(1, 0)]
    charge(rows, 5, [2.0, 40.0])
    assert [(row.tokens, row.flops) for row in rows] == [(8, 3.0), (5, 40.0)]
    charge(rows, 0, [1.0, 1.0])  # what no token goes through: a head, a value
    assert [(row.tokens, row.flops) for row in rows] == [(8, 4.0), (5, 41.0)]


def test_flops_of_other_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        charge([Response(0, 0), Response(0, 1)], 1, [1.0])


def test_a_prompt_is_paid_in_every_lane() -> None:
    """Prompt 1 has 2 tokens in the first model at 10 FLOPs each, and 4 of the second's at 1."""
    lanes: Any = SimpleNamespace(all=[lane([[7], [7, 8]], 10.0), lane([[1], [1, 2, 3, 4]], 1.0)])
    row = Response(1, 0)
    charge_prompt(row, lanes)
    assert (row.tokens, row.flops) == (2 + 4, 2 * 10.0 + 4 * 1.0)


def test_a_step_of_five_alternatives_is_five_tokens_a_row() -> None:
    rows = [Response(0, 0), Response(1, 0)]
    charge_step(rows, lane([], 10.0), 5)
    assert [(row.tokens, row.flops) for row in rows] == [(5, 50.0), (5, 100.0)]
