"""Errors of the bench; the commands turn them into exit codes."""

from collections.abc import Sequence

from mksgn.common.errors import BadInputError, ListingError
from mksgn.common.words import counted


class FaultyRecordError(ListingError, BadInputError):
    """A run's folder contradicts itself. The message lists every fault on a line of its own."""

    def __init__(self, place: str, faults: Sequence[str]):
        self.faults = tuple(faults)
        super().__init__(f"{place}: {counted(len(faults), 'fault')}", [f"  {fault}" for fault in faults])


class BoundMissedError(ListingError):
    """A run is worse than was allowed. The message lists every missed bound on a line of its own."""

    exit_code = 5

    def __init__(self, place: str, missed: Sequence[str]):
        self.missed = tuple(missed)
        super().__init__(f"{place}: {counted(len(missed), 'bound')} missed", [f"  {bound}" for bound in missed])
