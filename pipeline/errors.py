"""What a user did that cannot work: one line, exit code 2."""


class UsageError(Exception):
    """A configuration that cannot run. The message is one line that names the key and the way out."""


def no_space(error: BaseException) -> bool:
    """Whether an error, from Python or from a library that wraps it, says that the disk is full."""
    return getattr(error, "errno", None) == 28 or "No space left on device" in str(error)
