"""Signals at the two places where an exception from a handler would lose track of a child, and in the children."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM where their handler could raise, and deliver them afterwards.

    Handlers run in the main thread only; in any other there is nothing to hold. The handlers are replaced rather than the
    signals blocked: the kernel would hand a blocked signal to another thread, and Python run its handler in this one all
    the same. A child forked meanwhile inherits the harmless handler, so that Ctrl-C cannot reach it before it ignores it.
    """
    held: list[int] = []
    # A stack, because a handler may raise as soon as it is back: what is still to be put back and delivered must be.
    with contextlib.ExitStack() as afterwards:
        if threading.current_thread() is threading.main_thread():
            afterwards.callback(_deliver, held)
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    afterwards.callback(signal.signal, number, handler)
                    signal.signal(number, lambda caught, _: held.append(caught))
        yield


def _deliver(held: list[int]) -> None:
    with contextlib.ExitStack() as each:
        for number in reversed(dict.fromkeys(held)):
            each.callback(signal.raise_signal, number)


def reset_signals_in_child() -> None:
    """Ctrl-C is the parent's to act on; every other signal does what the kernel does, not what the parent's handlers do."""
    signal.set_wakeup_fd(-1)  # of an event loop in the parent
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a model may start programs, and ask how they ended
