"""Opening files for reading: only regular files of bounded size."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from mksgn.common.errors import BadInputError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
TEXT_BYTES = 1 << 24  # of a file that people write: YAML, counts, configurations
RECORD_BYTES = 1 << 28  # of a file of facts that a command writes: run.json, manifest.json, metrics


def open_file(path: Path, limit: int | None, remedy: str = "name a file") -> BinaryIO:
    """Open a regular file; a pipe would wait for a writer, and a device has no end.

    Args:
        path: The file.
        limit: Most bytes that a file of this kind may have; None if it is mapped or read in pieces.
        remedy: What to do where there is no such file.

    Raises:
        BadInputError: There is no such file, it cannot be opened, is not a regular file, or is larger than `limit`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: no such file; {remedy}") from error
    except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
        raise BadInputError(f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and (limit is None or found.st_size <= limit):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(found.st_mode):
        raise BadInputError(f"{path}: has {found.st_size:,} bytes, the limit is {limit:,}; name another file")
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "not a regular file")
    raise BadInputError(f"{path}: is {kind}; {remedy}")


def read_bytes(path: Path, limit: int, remedy: str = "name a file") -> bytes:
    """Read a regular file of at most `limit` bytes, which may not grow meanwhile. Raises as `open_file` does."""
    with open_file(path, limit, remedy) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise BadInputError(f"{path}: has more than {limit:,} bytes, the limit; name another file")
    return content


def read_text(path: Path, limit: int = TEXT_BYTES, remedy: str = "name a file") -> str:
    """Read a UTF-8 file. Raises as `open_file` does, and BadInputError for other bytes."""
    try:
        return read_bytes(path, limit, remedy).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
