"""Errors of this stage; the commands turn them into exit codes."""

from collections.abc import Sequence

from mksgn.common.errors import BadInputError, MksgnError


class FaultyRecordError(BadInputError):
    """A run's folder that contradicts itself: every fault in a line of its own."""

    def __init__(self, place: str, faults: Sequence[str]):
        self.faults = tuple(faults)
        super().__init__(_list(f"{place}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}", faults))


class BoundMissedError(MksgnError):
    """A run that is worse than its reference by more than was allowed: every missed bound in a line of its own."""

    exit_code = 5

    def __init__(self, place: str, missed: Sequence[str]):
        self.missed = tuple(missed)
        super().__init__(_list(f"{place}: {len(missed)} {'bound' if len(missed) == 1 else 'bounds'} missed", missed))


def _list(head: str, lines: Sequence[str]) -> str:
    return "\n".join([head, *(f"  {line}" for line in lines)])
