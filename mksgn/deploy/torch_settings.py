"""Settings of torch that outlast one call, while several threads, or a forked process, run programs."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch


class _Overlapping:
    """A change that the first of several overlapping blocks makes and the last one undoes."""

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        self._change = change
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # where the other threads' blocks would never end

    def _reset(self) -> None:
        self._lock, self._blocks = threading.Lock(), 0
        self._take_back: Callable[[], None] = lambda: None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._blocks == 0:
                self._take_back = self._change()
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if self._blocks == 0:
                    self._take_back()


def _be_exact() -> Callable[[], None]:
    matmul, settings = torch.backends.cuda.matmul, ExitStack()
    settings.callback(setattr, matmul, "allow_tf32", matmul.allow_tf32)
    matmul.allow_tf32 = False
    settings.enter_context(torch.backends.cudnn.flags(enabled=False))
    return settings.close


# Switches off what makes sums inexact on a GPU: TensorFloat-32, and convolution by transforms (Winograd, FFT).
exact_sums = _Overlapping(_be_exact)


class _Threads:
    """torch's number of threads, which each thread keeps for itself and takes over from the last one that set it."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock, self._blocks, self._number = threading.Lock(), 0, 1

    def number(self) -> int:
        """Return how many threads torch uses outside the blocks of `one`."""
        with self._lock:
            return self._number if self._blocks else torch.get_num_threads()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Let torch use a single thread in the calling thread."""
        with self._lock:
            if self._blocks == 0:
                self._number = torch.get_num_threads()
            self._blocks += 1
            number = self._number
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(number)
            with self._lock:
                self._blocks -= 1

    def settle_after_fork(self) -> None:
        """Limit torch to one thread, once, in a forked process: it would wait forever for its parent's threads."""
        if self._process != os.getpid():
            self._process = os.getpid()
            torch.set_num_threads(1)


threads = _Threads()
