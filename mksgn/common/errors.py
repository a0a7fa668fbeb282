"""Errors that a user can act on, with what, where, number against limit, remedy. Commands turn them
into exit codes."""

from mksgn.common.quoting import printable


class MksgnError(Exception):
    """Base of every error that a command reports in one line on stderr; `exit_code` is what it ends
    with."""

    exit_code = 2
    listing = False  # whether the message goes on with a line for each fault

    def __str__(self) -> str:
        # names of files, populations and labels are anybody's: they end no line and reach no terminal as they are
        text = super().__str__()
        return "\n".join(map(printable, text.split("\n"))) if self.listing else printable(text)


def first_line(error: Exception) -> str:
    """Return the first line of another library's error, shortened for quoting, or the error's class
    if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class BadInputError(MksgnError, ValueError):
    """A file, clip or argument that cannot be used as it is."""


class MksgnWarning(UserWarning):
    """What a run does with a file that leaves something open, or holds more than it uses; a line in a command."""
