"""One sending over the wire: its errors are sorted, its key is kept."""

from stages.servers.wire import retry_after


def test_retry_after_is_read_or_left_alone() -> None:
    assert retry_after({}) is None
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "-5"}) == 0
    assert retry_after({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT"}, now=lambda: 1792567680.0) == 10
