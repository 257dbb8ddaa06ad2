"""Which points a line joins, and what stands beside them."""

from typing import Any

from sweeps.curves import curves, tags
from sweeps.points import Point


def point(method: str, **settings: Any) -> Point:
    return Point(method, method, settings, [])


def chunk(beams: int, successors: int, length: int | None) -> Point:
    return point("ivg", token_by="none", beams=beams, successors=successors, chunk=length)


def lines(points: list[Point]) -> list[tuple[str, list[int]]]:
    return [(curve.name, curve.points) for curve in curves(points)]


def test_a_method_s_strength_makes_its_line_in_the_order_of_the_strength() -> None:
    points = [point("base"), point("dpo", beta=0.5), point("dpo", beta=0.05), point("vas", beta=2.0, k=10)]
    points += [point("dpo", beta=0.1), point("vas", beta=1.0, k=10)]
    assert lines(points) == [("base", [0]), ("dpo", [2, 4, 1]), ("vas", [5, 3])]
    assert tags(points) == ["base", "β = 0.5", "β = 0.05", "β = 2", "β = 0.1", "β = 1"]


def test_a_line_never_joins_points_that_differ_in_two_things() -> None:
    """W × K × L at equal W·K: lines run along L; the point of another W × K stands alone."""
    points = [chunk(4, 4, 2), chunk(1, 16, 5), chunk(4, 4, 5), chunk(8, 2, 5), chunk(1, 16, 2)]
    assert lines(points) == [
        ("ivg (beams = 4, successors = 4)", [0, 2]),
        ("ivg (beams = 1, successors = 16)", [4, 1]),
        ("ivg", [3]),
    ]
    assert tags(points)[0] == "chunk = 2"
    assert tags(points)[3] == "beams = 8 · successors = 2 · chunk = 5"


def test_words_order_nothing() -> None:
    points = [
        point("ivg", token_by=t, chunk_by=c, beams=4)
        for t in ("implicit", "explicit")
        for c in ("implicit", "none")
    ]  # fmt: skip
    assert lines(points) == [("ivg", [row]) for row in range(4)]
    assert tags(points)[:2] == ["implicit · implicit", "implicit · none"]


def test_a_number_that_is_sometimes_none_is_no_axis() -> None:
    points = [chunk(4, 4, 2), chunk(4, 4, None)]
    assert lines(points) == [("ivg", [0]), ("ivg", [1])]
