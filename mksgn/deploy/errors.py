"""Errors of this stage. The commands turn them into exit codes."""

from mksgn.common.errors import BadInputError, MksgnError


class DeployError(BadInputError):
    """A graph that cannot be run here: node, type, reason, remedy."""


class ChipLimitError(MksgnError):
    """A program that does not fit the chip."""

    exit_code = 4


class PassError(MksgnError):
    """A pass that broke an invariant of the program: a defect of the compiler, not of the graph."""
