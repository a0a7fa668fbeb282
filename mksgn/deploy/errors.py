"""Errors of this stage. The commands turn them into exit codes."""

import sys

from mksgn.common.errors import BadInputError, ListingError, MksgnError


class DeployError(BadInputError):
    """A graph that cannot be run here: node, type, reason, remedy."""


def how_to_install_lava() -> str:
    """Return the commands that install Lava on this Python."""
    relaxed = " and pip install --no-deps --ignore-requires-python lava-nc==0.10.0"
    return f"make setup, or pip install 'mksgn[lava]'{relaxed if sys.version_info >= (3, 11) else ''}"


class LavaMissingError(DeployError):
    """Lava cannot be imported: what Python said, and how to install it on this Python."""

    def __init__(self, error: ImportError) -> None:
        super().__init__(
            f"backend lava: Lava cannot be imported ({error}); {how_to_install_lava()}, or use --backend emulator"
        )


class ChipLimitError(ListingError):
    """A program that does not fit the chip, with a line for each limit that it exceeds."""

    exit_code = 4


class PassError(MksgnError):
    """A pass that broke an invariant of the program: a defect of the compiler, not of the graph."""
