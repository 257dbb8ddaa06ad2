"""Labelled texts: which are read, what their labels mean, and the figures of the part that only measures."""

from pathlib import Path

import numpy as np
import pytest

from stages import records
from stages.errors import BadInput
from stages.learn.rewards.examples import binary_labels, heldout_metrics, read_parts
from stages.records import Example


def example(i: int, label: float, part: str = "a") -> Example:
    return Example(id=str(i), part=part, prompt="", text="x", label=label)


def test_parts_are_read_in_the_order_of_the_file(tmp_path: Path):
    rows = [example(0, 1.0), example(1, 0.0, "b"), example(2, 0.0), example(3, 1.0, "c")]
    records.write(tmp_path / "examples.parquet", Example, rows)
    train, heldout = read_parts(tmp_path, "a", "b")
    assert [[e.id for e in part] for part in (train, heldout)] == [["0", "2"], ["1"]]


def test_an_empty_part_and_one_label_are_refused(tmp_path: Path):
    records.write(tmp_path / "examples.parquet", Example, [example(0, 1.0), example(1, 0.7), example(2, 0.0, "b")])
    with pytest.raises(BadInput, match=r"^heldout: there are no labelled examples in part 'z'; the parts are: a, b"):
        read_parts(tmp_path, "a", "z")
    with pytest.raises(BadInput, match=r"^part: all 2 examples of part 'a' have the same label; both are needed"):
        read_parts(tmp_path, "a", "b")


def test_a_graded_label_is_good_from_one_half_on():
    found = binary_labels([example(i, label) for i, label in enumerate([0.0, 0.49, 0.5, 1.0])])
    assert found.dtype == np.int64
    assert found.tolist() == [0, 0, 1, 1]


def test_accuracy_and_area_by_hand():
    heldout = [example(i, label) for i, label in enumerate([1.0, 1.0, 0.0, 0.0])]
    # On their side of 0 are 2 and −1: two of four. Of the four pairs of a good one and a bad one the good one is above
    # in (2, 1), (2, −1) and (−.5, −1): ¾.
    found = heldout_metrics(np.array([2.0, -0.5, 1.0, -1.0]), heldout, trained=7)
    assert found == {"examples": 7, "heldout_examples": 4, "heldout_accuracy": 0.5, "heldout_auc": 0.75}


def test_one_label_has_no_area():
    found = heldout_metrics(np.array([2.0, -1.0]), [example(0, 1.0), example(1, 1.0)], trained=7)
    assert np.isnan(found["heldout_auc"])
    assert found["heldout_accuracy"] == 0.5
