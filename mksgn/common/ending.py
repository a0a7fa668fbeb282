"""How a command's process prints and exits, whatever its streams are and whenever Ctrl-C comes.

Imports nothing but the standard library: it has to work before torch is imported.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

INTERRUPTED, PIPE_CLOSED = 130, 141  # as a shell reports SIGINT and SIGPIPE


def open_streams() -> None:
    """Give stdout and stderr somewhere to write to, and escape characters that their encoding lacks.

    If a descriptor is closed (`>&-`), the next file that is opened would get its number, and receive what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif hasattr(stream, "reconfigure"):  # a program that calls a command may have put something else there
            stream.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Write a line to stderr; if nobody can read it, the exit code still tells the outcome."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Discard what is left in a stream's buffer: Python would fail on it once more at exit."""
    stream = getattr(stream, "wrapped", stream)  # typer wraps both where a pipe is closed
    if stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def written_out() -> OSError | None:
    """Flush stdout; return the error of a closed pipe or a full disk, which Python would otherwise raise at
    exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        return error
    return None


def end_at_next_interruption(name: str, line: str | None = None) -> Any:
    """Let Ctrl-C end the process at once, after `line` if there is one. Return the previous handler.

    Used for imports, which have nothing to clean up and may swallow an exception, and at the end of a command.
    """

    def end(*_: object) -> NoReturn:
        if line is not None:
            with suppress(OSError):
                os.write(2, f"{name}: {line}\n".encode())
        os._exit(INTERRUPTED)

    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and callable(before)  # nohup ignores it
    if ours:
        signal.signal(signal.SIGINT, end)
    return before if ours else None


@contextmanager
def ending_at_interruption(name: str) -> Iterator[None]:
    """Let Ctrl-C end the process at once, with a line, while the block imports modules."""
    before = end_at_next_interruption(name, "interrupted")
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
