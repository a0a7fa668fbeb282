"""Handling of signals while a handler's exception would lose track of a child, and in the children."""

import contextlib
import signal
import threading
from collections.abc import Iterator

HELD = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM, whose handlers could raise, and deliver them at the end of the block.

    Handlers run only in the main thread. There they are replaced, rather than the signals blocked:
    the kernel would pass a blocked signal to another thread, and Python would still run its handler
    in this one. Other threads block them instead. A child forked in the block inherits the harmless
    handler or the block, so that Ctrl-C cannot reach it before it ignores SIGINT.
    """
    held: list[int] = []
    # A stack: a handler may raise once it is restored, and the others must still be restored and
    # called.
    with contextlib.ExitStack() as afterwards:
        if threading.current_thread() is threading.main_thread():
            afterwards.callback(_deliver, held)
            for number in HELD:
                handler = signal.getsignal(number)
                if callable(handler):
                    afterwards.callback(signal.signal, number, handler)
                    signal.signal(number, lambda caught, _: held.append(caught))
        else:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
            afterwards.callback(signal.pthread_sigmask, signal.SIG_SETMASK, blocked)
        yield


def _deliver(held: list[int]) -> None:
    with contextlib.ExitStack() as each:
        for number in reversed(dict.fromkeys(held)):
            each.callback(signal.raise_signal, number)


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
