"""The one error by which a stage refuses its input."""

from collections.abc import Iterator
from contextlib import contextmanager


class BadInput(ValueError):
    """A field of a stage has a value that cannot be used.

    `field` is the dotted path inside the stage's own configuration (`guide.k`, `table`); the runner turns it into
    the configuration key that the user wrote (`method.k`). `problem` is one line: what is wrong and the way out.

    >>> str(BadInput("guide.k", "0 is not a positive number of candidates"))
    'guide.k: 0 is not a positive number of candidates'
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@contextmanager
def below(place: str) -> Iterator[None]:
    """What a part of a stage refuses by its own field is refused by the stage's: BadInput of `k` becomes `guide.k`."""
    try:
        yield
    except BadInput as error:
        error.field = f"{place}.{error.field}"
        error.args = (f"{error.field}: {error.problem}",)
        raise
