"""The one error by which a stage refuses its input."""


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
