"""Threads that use Lava take turns: its compiler and its lists of Processes are not made for several at once."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Turns:
    """A lock that the same thread may take again, and that is free in a forked process, which has no other thread."""

    def __init__(self) -> None:
        self._free()
        os.register_at_fork(after_in_child=self._free)

    def _free(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def take(self) -> Iterator[None]:
        with self._lock:  # that of the beginning, should the block fork a process that leaves it too
            yield


turns = _Turns()
