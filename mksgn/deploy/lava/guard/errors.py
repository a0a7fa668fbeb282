"""The exceptions that end a guarded run of Lava."""

from mksgn.common.errors import MksgnError


class _ChildTraceback(Exception):  # noqa: N818
    """Shows a child's traceback above the parent's, as concurrent.futures does."""


class LavaRuntimeError(MksgnError):
    """A Process failed, or Lava could not run. `str()` is one line; `traceback` is the child's, or empty."""

    exit_code = 2

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message, traceback)  # both, so that pickling keeps both
        self.traceback = traceback
        if traceback:
            self.__cause__ = _ChildTraceback(f'\n"""\n{traceback}"""')


class LavaDeadlineError(LavaRuntimeError):
    """No Process has made progress for the whole deadline."""
