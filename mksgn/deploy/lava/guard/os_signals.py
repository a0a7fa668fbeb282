"""Handling of signals while a handler's exception would lose track of a child, and in the children."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

HELD = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], Any]


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM, whose handlers could raise, and deliver them at the end of the block.

    Handlers run only in the main thread. There they are replaced, rather than the signals blocked:
    the kernel would pass a blocked signal to another thread, and Python would still run its handler
    in this one. Other threads block them instead. A child forked in the block inherits the harmless
    handler or the block, so that Ctrl-C cannot reach it before it ignores SIGINT.
    """
    if threading.current_thread() is not threading.main_thread():
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return
    replaced: list[tuple[int, Handler]] = []
    held: dict[int, None] = {}  # in the order of their arrival, each once
    try:
        for number in HELD:
            handler = signal.getsignal(number)
            if callable(handler):
                replaced.append((number, handler))
                signal.signal(number, lambda caught, _: held.update({caught: None}))
        yield
    finally:
        _restore(replaced, held)


def _restore(replaced: list[tuple[int, Handler]], held: dict[int, None]) -> None:
    """Restore the handlers, then deliver what was held.

    A handler that is restored may raise, for a new signal, between any two instructions: what is
    left to do is done before its exception goes on.
    """
    try:
        while replaced:
            signal.signal(*replaced[-1])
            replaced.pop()
        while held:
            number = next(iter(held))
            del held[number]
            signal.raise_signal(number)
    except BaseException:
        _restore(replaced, held)
        raise


def reset_signals_in_child() -> None:
    """Ignore Ctrl-C, which the parent handles; give every other signal its default action, not the parent's."""
    signal.set_wakeup_fd(-1)  # it may belong to an event loop of the parent
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a model may start programs, and ask how they ended
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)  # what the forking thread held back
