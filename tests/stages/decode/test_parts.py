"""What searches and scorers share: whose random numbers a successor follows, and how a part may behave."""

import pytest

from stages.decode.parts import Successor, require_compatible
from stages.errors import BadInput


def test_a_successor_follows_a_stream_of_its_own() -> None:
    """sample·W·K + slot: draw 4 of 6 of sample 3 is the prompt's stream 22."""
    assert Successor(0, 3, draws=6, slot=4).stream == 22


def test_groups_share_no_stream_and_leave_none_out() -> None:
    """Samples 0 and 1 of W·K = 4 draws are the streams 0 to 7, as eight samples without a search."""
    streams = [Successor(0, sample, draws=4, slot=slot).stream for sample in (0, 1) for slot in range(4)]
    assert streams == list(range(8))
    assert [Successor(0, sample).stream for sample in range(3)] == [0, 1, 2]  # one draw a group is sampling


def test_successors_sum_log_probabilities_each_for_itself() -> None:
    one, other = Successor(0, 0), Successor(0, 1)
    one.logprobs[0] += 1.0
    one.token_ids.append(7)
    assert (other.logprobs, other.token_ids) == ([0.0, 0.0], [])


@pytest.mark.parametrize("field", ["guide", "search"])
def test_a_part_is_as_we_think_right_or_official(field: str) -> None:
    require_compatible("", field)
    require_compatible("official", field)
    with pytest.raises(BadInput) as error:
        require_compatible("trl", field)
    assert str(error.value) == f"{field}.compat: 'trl' is not 'official' or empty"
