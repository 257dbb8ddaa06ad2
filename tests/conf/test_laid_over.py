"""A value laid over a composed configuration counts as it does when it is composed with it."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from omegaconf import OmegaConf

from pipeline.graph import Graph
from pipeline.points import Composition, Point

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "values",
    [
        {"method.beta": 3.0},
        {"method.k": 5, "sampling.temperature": 0.5},
        {"task.parts.test.size": 9, "value.td_lambda": 1},
        {"gold.name": "proxy"},
        {"model.dtype": "float32", "evaluation.seed": 4},
        {"evaluation.samples": 2},
    ],
)
def test_values_laid_over_a_composition_give_the_keys_of_a_full_composition(values: dict[str, object]) -> None:
    shared = Composition(compose("config", []))
    before = Graph([Point("", shared)]).nodes.keys()
    laid = Graph([Point("", shared, tuple(values.items()))]).nodes.keys()
    full = Graph([Point.of(compose("config", [f"{key}={value}" for key, value in values.items()]))]).nodes.keys()
    assert laid == full
    assert laid != before
    assert Graph([Point("", shared)]).nodes.keys() == before  # nothing of the values stays behind


@pytest.mark.parametrize("method", sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml")))
def test_every_number_of_a_method_counts_in_a_sweep_as_it_does_alone(method: str) -> None:
    """Each at twice its default; of IVG both guides' numbers, which it reads through `${method.guides.${…}}`."""
    parts = [["method.token_by=explicit"], ["method.token_by=implicit"]] if method == "ivg" else [[]]
    for chosen in parts:
        shared = Composition(compose("config", [f"method={method}", *chosen]))
        written: Any = OmegaConf.to_container(shared.config.method, resolve=False)
        numbers = {key: value for key, value in written.items() if _is_number(value)}
        for key, number in numbers.items():
            doubled = (f"method.{key}", 2 * number)
            laid = Graph([Point("", shared, (doubled,))]).nodes.keys()
            alone = compose("config", [f"method={method}", *chosen, f"{doubled[0]}={doubled[1]}"])
            assert laid == Graph([Point.of(alone)]).nodes.keys(), doubled


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
