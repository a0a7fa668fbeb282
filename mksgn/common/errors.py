"""Errors that a user can act on, with what, where, number against limit, remedy. Commands turn them
into exit codes."""

from collections.abc import Sequence
from pathlib import Path

from mksgn.common.quoting import printable


class MksgnError(Exception):
    """Base of every error that a command reports on stderr, in one line; `exit_code` is the command's."""

    exit_code = 2

    def __str__(self) -> str:
        # names of files, populations and labels are untrusted: escaped, they cannot end the line or act on a terminal
        return printable(str(self.args[0])) if self.args else ""


class ListingError(MksgnError):
    """An error whose message goes on with a line for each fault."""

    def __init__(self, first: str, faults: Sequence[str]):
        super().__init__(first, tuple(faults))

    def __str__(self) -> str:
        first, faults = self.args
        return "\n".join(map(printable, (first, *faults)))


def without_path(error: MksgnError, path: Path) -> str:
    """Return an error's text without the file's path in front, for a message that names the file itself."""
    return str(error).removeprefix(printable(f"{path}: "))


def first_line(error: Exception) -> str:
    """Return the first line of another library's error, shortened for quoting, or the error's class
    if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class BadInputError(MksgnError, ValueError):
    """A file, clip or argument that cannot be used as it is."""


class MksgnWarning(UserWarning):
    """What a run does with a file that leaves something open, or holds more than it uses; commands print a line."""
