"""Errors of this stage; the commands turn them into exit codes."""

from mksgn.common.errors import BadInputError, MksgnError


class DeployError(BadInputError):
    """A graph that cannot be run here: node, type, reason, remedy."""


class ChipLimitError(MksgnError):
    """A program that does not fit the chip."""

    exit_code = 4
