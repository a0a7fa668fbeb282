"""Errors that a user can act on: what, where, number against limit, remedy. The commands turn them into exit codes."""


class MksgnError(Exception):
    """Base of every error that a command reports in one line on stderr; `exit_code` is what it ends with."""

    exit_code = 2


class BadInputError(MksgnError, ValueError):
    """A file, clip or argument that cannot be used as it is."""
