"""Errors that end a run, or a point of it, with one line."""


class UsageError(Exception):
    """A configuration that cannot run. The message is one line that names the key and the way out."""


def no_space(error: BaseException) -> bool:
    """Whether an error, from Python or from a library that wraps it, says that the disk is full."""
    return getattr(error, "errno", None) == 28 or "No space left on device" in str(error)


class PointFailed(Exception):
    """A point of a sweep whose stages did not all succeed; `exit_code` is the run's."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])
