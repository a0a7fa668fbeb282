"""Errors that a user can act on: what, where, number against limit, remedy. The commands turn them into exit codes."""


class MksgnError(Exception):
    """Base of every error that a command reports in one line on stderr; `exit_code` is what it ends with."""

    exit_code = 2


def first_line(error: Exception) -> str:
    """What another library's error says, short enough to be quoted in a line of ours; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class BadInputError(MksgnError, ValueError):
    """A file, clip or argument that cannot be used as it is."""
