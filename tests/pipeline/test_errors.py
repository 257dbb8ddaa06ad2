"""Errors that end a run."""

import errno
import pickle

import pytest

from pipeline.errors import PointFailed, no_space


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (RuntimeError("write failed: No space left on device"), True),  # a library's, around the real one
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("no"), False),
    ],
)
def test_a_full_disk_is_known_also_through_a_library(error: Exception, full: bool) -> None:
    assert no_space(error) is full


def test_a_failed_point_keeps_its_exit_code_on_the_way_back_from_another_process() -> None:
    back = pickle.loads(pickle.dumps(PointFailed("vas: the voice broke", 3)))
    assert (str(back), back.exit_code) == ("vas: the voice broke", 3)
