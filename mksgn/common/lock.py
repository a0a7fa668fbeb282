"""One writer per folder."""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from mksgn.common.errors import BadInputError

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of a folder, which exists, until the end. The system releases what a killed process held.

    Raises:
        BadInputError: Another run writes into the folder; the message says which.
    """
    path = folder / LOCK_FILE
    descriptor = _taken(path, folder)
    try:
        holder = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:500],
            "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
        path.unlink(missing_ok=True)  # while it is held: who waits for it looks again
    finally:
        os.close(descriptor)


def _taken(path: Path, folder: Path) -> int:
    """Open and lock the file that has the name now; one that its last holder removed meanwhile locks nobody out."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise BadInputError(
                f"{folder}: {holder} writes into it; wait until it ends, or choose another folder"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        facts = json.loads(os.pread(descriptor, 4096, 0))
        return f"{facts['command']} (process {facts['process']} on {facts['host']}, since {facts['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
