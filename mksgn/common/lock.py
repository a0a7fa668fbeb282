"""One writer per folder."""

import fcntl
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from mksgn.common.errors import BadInputError
from mksgn.common.quoting import printable

LOCK_FILE = ".mksgn.lock"
_held: set[int] = set()  # descriptors


def _leave_to_the_parent() -> None:
    """Close the descriptors in a forked child; otherwise any child of a killed process would keep a lock held."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_the_parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of an existing folder in this block. The system releases the lock of a killed process.

    Raises:
        BadInputError: Another run, which the message names, writes into the folder; or it cannot be written.
    """
    path = folder / LOCK_FILE
    descriptor = _taken(path, folder)
    _held.add(descriptor)
    try:
        holder = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:500],
            "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # on a full disk others do not learn the name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        if descriptor in _held:  # it is not in a forked child, which has no part in the lock
            _held.remove(descriptor)
            try:
                path.unlink(missing_ok=True)  # while it is held: whoever opens it meanwhile looks again
            finally:
                os.close(descriptor)


def _taken(path: Path, folder: Path) -> int:
    """Open and lock the file that has the name now: one that its last holder has just removed would lock nobody out."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise BadInputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise BadInputError(f"{path}: is not a lock: it has a second name or is not a regular file; remove it")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise BadInputError(
                f"{folder}: {holder} is writing to it; wait until it ends, or choose another folder"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        facts = json.loads(os.pread(descriptor, 4096, 0))
        text = f"{facts['command']} (process {facts['process']} on {facts['host']}, since {facts['since']})"
        return printable(text)[:700]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"
