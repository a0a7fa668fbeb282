"""Threads that use Lava take turns: neither its compiler nor its lists of Processes is made for several at once."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Turns:
    """A reentrant lock that is free in a forked process, which has no other thread."""

    def __init__(self) -> None:
        self._free()
        os.register_at_fork(after_in_child=self._free)

    def _free(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def take(self) -> Iterator[None]:
        with self._lock:  # releases the lock that it took, even in a process forked in the block
            yield


turns = _Turns()
