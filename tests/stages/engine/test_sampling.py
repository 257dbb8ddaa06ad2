"""What a draw may be set to, and the randomness of a row."""

import math

import numpy as np
import pytest

from stages.engine.sampling import Sampling, uniforms
from stages.errors import BadInput


def test_a_rows_uniforms_do_not_depend_on_the_number_of_steps() -> None:
    assert np.array_equal(uniforms(1, "a", 2, 50)[:7], uniforms(1, "a", 2, 7))


def test_uniforms_differ_by_seed_prompt_and_sample() -> None:
    rows = [uniforms(*key, 4) for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a0", 0)]]
    assert len({row.tobytes() for row in rows}) == 5
    assert rows[0].dtype == np.float64
    assert rows[0].shape == (4, 3)


def test_uniforms_are_pinned() -> None:
    """Published results stay reproducible: a change of the generator would be a change of every draw."""
    assert uniforms(0, "p", 0, 1)[0].tolist() == pytest.approx(
        [0.677624085952868, 0.6139920213780224, 0.28146150747623044], abs=0
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("temperature", -1.0),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 1.0),
        ("max_new_tokens", 0),
    ],
)
def test_bad_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(BadInput) as error:
        Sampling(**{name: value}).check()  # type: ignore[arg-type]
    assert error.value.field == f"sampling.{name}"
    assert "\n" not in error.value.problem


def test_an_empty_stopping_string_is_refused() -> None:
    with pytest.raises(BadInput, match=r"sampling\.stop: an empty string"):
        Sampling(stop=[""]).check()
