"""Lava's channels without threads and names: semaphores and anonymous shared memory, inherited through fork.

Stock Lava has a thread at each end of each channel, eight in a small Process, which turn semaphores
into queues inside their process: every message wakes two of them. Here the ends wait on the
semaphores themselves. The protocol is Lava's own: `req` counts the messages waiting to be read,
`ack` the free entries of the ring buffer. A time step of 10 / 40 / 60 trivial leaves on two cores
takes 0.3 / 1.4 / 1.6 ms; with Lava's threads under the same guard 0.8 / 3.6 / 9 ms.

The memory has no name in /dev/shm, so that even a killed process leaves no segment, and it needs no
manager process that could be killed.
"""

import math
import mmap
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from mksgn.deploy.lava.guard.start_method import FORK  # before Lava

# isort: split
from lava.magma.compiler.channels.interfaces import Channel
from lava.magma.compiler.channels.pypychannel import CspRecvPort, CspSelector, CspSendPort, Proto
from lava.magma.compiler.channels.watchdog import NoOPWatchdog
from lava.utils.sparse import find

MESSAGES, WAITS, STEP = range(3)  # a process's counters: messages passed, whether it waits for one, its time step
SHORTEST_S, LONGEST_S = 0.00005, 0.002  # pauses between two polls of several channels


class Memory:
    """Replaces Lava's SharedMemoryManager; Lava's ports only use `buf` of its segments."""

    def __init__(self) -> None:
        self.segments: list[SimpleNamespace] = []

    def create_shared_memory(self, size: int) -> SimpleNamespace:
        self.segments.append(SimpleNamespace(buf=memoryview(mmap.mmap(-1, max(1, size)))))  # -1: anonymous; shared
        return self.segments[-1]

    def release(self) -> None:
        """Drop the maps without closing them: closing one while Lava's arrays point into it is a segfault."""
        for segment in self.segments:
            segment.buf = None


def new_counters() -> memoryview:
    """Counters of one process, all 0, which the process that forks it can read."""
    return memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")


class _Tally:
    """Where this process counts its messages; in a child, the parent reads them."""

    def __init__(self) -> None:
        self.counters, self.model = new_counters(), None

    def passed(self) -> None:
        self.counters[MESSAGES] += 1
        self.counters[STEP] = getattr(self.model, "time_step", 0)


_tally = _Tally()


def count_in_child(counters: memoryview, model: Any) -> None:
    """Count into `counters` from now on, with the time step of `model`; make Lava's selector wait on these channels."""
    _tally.counters, _tally.model = counters, model
    CspSelector.select = _select


class _Port:
    """One end of a channel. A token taken from its semaphore is kept until used, so that probing loses nothing."""

    _name: str
    _shape: tuple[int, ...]
    _dtype: Any
    _nbytes: int
    _size: int
    _idx: int
    _shm: Any
    _req: Any
    _ack: Any
    _token: Any
    _array: list[np.ndarray]
    _held = False

    def start(self) -> None:
        part = self._nbytes
        self._array = [
            np.ndarray(self._shape, self._dtype, self._shm.buf[part * i : part * (i + 1)]) for i in range(self._size)
        ]

    def wait(self, seconds: float | None = None) -> bool:
        """Return whether the port is ready, at once or within `seconds`; None: wait without limit."""
        if not (self._held or self._token.acquire(False)):
            _tally.counters[WAITS] = 1
            self._held = self._token.acquire(True, seconds)
            _tally.counters[WAITS] = 0
            return self._held
        self._held = True
        return True

    def probe(self) -> bool:
        """Return whether the port is ready: its next call will not block."""
        self._held = self._held or self._token.acquire(False)
        return self._held

    def join(self) -> None:
        """Drop the semaphores and the arrays in shared memory: Lava never drops its ports."""
        self._token = self._ack = self._req = None
        self._array = []


class SendPort(_Port, CspSendPort):
    def start(self) -> None:
        self._token = self._ack
        super().start()

    def send(self, data: Any) -> None:
        if data.shape != self._shape:
            raise AssertionError(f"port {self._name} sends shape {self._shape}, but was given {data.shape}")
        if isinstance(data, csr_matrix):
            data = find(data, explicit_zeros=True)[2]
        self.wait()
        self._held = False
        self._array[self._idx][:] = data[:]
        self._idx = (self._idx + 1) % self._size
        self._req.release()
        _tally.passed()


class RecvPort(_Port, CspRecvPort):
    def start(self) -> None:
        self._token = self._req
        super().start()

    def peek(self) -> np.ndarray:
        self.wait()
        return self._array[self._idx].copy()

    def recv(self) -> np.ndarray:
        self.wait()
        result = self._array[self._idx].copy()
        self._held = False
        self._idx = (self._idx + 1) % self._size
        self._ack.release()
        _tally.passed()
        return result


class ForkedChannel(Channel):
    """Both ends of a channel with a ring buffer of `size` messages; replaces Lava's PyPyChannel, without watchdogs."""

    def __init__(self, infrastructure: Any, src_name: str, dst_name: str, shape: Any, dtype: Any, size: int, *_: Any):
        proto = Proto(shape=shape, dtype=dtype, nbytes=math.prod(shape) * np.dtype(dtype).itemsize)
        memory = infrastructure.smm.create_shared_memory(proto.nbytes * size)
        req, ack, off = FORK.Semaphore(0), FORK.Semaphore(size), NoOPWatchdog(None)
        self._src = SendPort(src_name, memory, proto, size, req, ack, off, off)
        self._dst = RecvPort(dst_name, memory, proto, size, req, ack, off, off)

    @property
    def src_port(self) -> SendPort:
        return self._src

    @property
    def dst_port(self) -> RecvPort:
        return self._dst


def _select(selector: CspSelector, *channel_actions: tuple[Any, Callable[[], Any]]) -> Any:
    """Wait until a channel is ready and return the result of its action. Several are polled, less and less often."""
    pause = SHORTEST_S
    while True:
        for channel, action in channel_actions:
            if channel.probe():
                return action()
        if len(channel_actions) == 1:
            channel_actions[0][0].wait()
            continue
        _tally.counters[WAITS] = 1
        time.sleep(pause)
        _tally.counters[WAITS] = 0
        pause = min(2 * pause, LONGEST_S)
