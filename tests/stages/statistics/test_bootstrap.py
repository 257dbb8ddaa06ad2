"""Bootstrap draws, as weights."""

import numpy as np
import pytest

from stages.errors import BadInput
from stages.statistics.bootstrap import checked_draws, draw_counts, leave_one_out


def test_a_draw_takes_as_many_items_as_there_are_and_depends_on_the_seed_alone():
    counts = draw_counts(30, 1000, seed=3)
    assert (counts.sum(1) == 30).all()
    assert counts.mean() == pytest.approx(1.0)
    assert counts.var() == pytest.approx(29 / 30, rel=0.05)  # n · (1/n) · (1 − 1/n)
    assert (counts == draw_counts(30, 1000, seed=3)).all()
    assert (counts != draw_counts(30, 1000, seed=4)).any()


def test_the_jackknife_leaves_out_each_item_once_whatever_the_portion():
    whole = np.concatenate(list(leave_one_out(7, portion=3)))
    assert (whole == 1 - np.eye(7)).all()


def test_fewer_than_a_thousand_draws_carry_no_interval():
    assert checked_draws(1000) == 1000
    with pytest.raises(BadInput, match="draws: 999 bootstrap draws are too few"):
        checked_draws(999)
