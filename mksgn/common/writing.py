"""Files that are written whole or not at all."""

import errno
import glob
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mksgn.common.errors import BadInputError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.part")
_NAME = 200  # bytes of the final name in a temporary one; file systems take 255


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new, empty file next to `path`, and move that file to `path` at the end.

    The name cannot be predicted and the file is created here, so that no link is followed and nobody else's file is
    written. The content is on the disk before it has the final name. A link at `path` is replaced, not followed.

    Raises:
        OSError: The file cannot be written; the error names `path`, and what was at `path` is still there.
    """
    temporary = _temporary(path)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
        yield temporary
        to_disk(temporary)
        os.replace(temporary, path)
        with suppress(OSError):  # some file systems do not support it for folders; the file is whole in any case
            to_disk(path.parent)
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)  # the error of a full disk has no name, others that of the temporary file
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_file(path: Path) -> Iterator[BinaryIO]:
    """As `replacing`, for writers of archives, which get an open file.

    If the disk is full, zipfile and torch go on to write the archive's end, and fail once more where nobody can
    catch it; HDF5 may end in a segmentation fault. So the first failure is kept, and raised here when they are done.
    """
    with replacing(path) as temporary:
        raw = _FailsAtTheEnd(temporary, "r+b")
        try:
            with io.BufferedRandom(raw, 1 << 16) as file:
                yield file
        except Exception as error:
            raise raw.failure or error  # noqa: B904 - the failure is the cause of the error
        if raw.failure is not None:
            raise raw.failure


class _FailsAtTheEnd(io.FileIO):
    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        self.seek(size, os.SEEK_CUR)  # beyond the end: the writer sees no failure
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """As `replacing`, for a folder, whose files are to be written by `replacing` too. An older folder is removed.

    For a moment neither of the two exists: use it where an older one is of no use, or use a draft (replacement.py).
    """
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
        if is_folder(path):
            shutil.rmtree(path)
        os.replace(temporary, path)
        with suppress(OSError):
            to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def append(path: Path, text: str) -> None:
    """Append to a text file, which is created if it does not exist.

    Raises:
        OSError: It cannot be written, or is a link, not a regular file, or has another name too.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise OSError(errno.EMLINK, "is a link or not a regular file; remove it", str(path))
        content = text.encode("utf-8")
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file so that readers see either the old content or the new one. Raises as `replacing` does.

    What UTF-8 cannot encode, such as a byte of a file's name that is not a character, is escaped, as in messages.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file in the same way."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def check_replaceable(path: Path, ours: bool, what: str, *, overwrite: bool) -> None:
    """Refuse to replace a file that is not known to be of the same kind as the one to be written.

    Args:
        path: The file to write.
        ours: Whether what is there is an earlier output of the same command.
        what: What would be written, such as "a comparison".
        overwrite: The user allows it.

    Raises:
        BadInputError: Something else is there.
    """
    if not os.path.lexists(path) or (not path.is_dir() and (ours or overwrite)):
        return
    if path.is_dir():
        raise BadInputError(f"{path}: is a directory; name a file in it")
    raise BadInputError(
        f"{path}: exists, and is not {what} written by this command; replace it with --overwrite, or name another file"
    )


def head_of(path: Path, size: int = 1 << 16) -> str:
    """Return the beginning of a regular file as text, or "" if there is none: it tells whether a file is ours."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(size).decode("utf-8", "replace")


def is_temporary(name: str) -> bool:
    """Tell whether a file's name is a temporary one of this module."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporaries(folder: Path, *names: str) -> None:
    """Remove what killed writers of these files and folders left in a folder, which must be locked; "*" names all."""
    for name in names:
        for path in folder.glob(f".{name if name == '*' else glob.escape(name)}.*.part"):
            if is_temporary(path.name):
                remove(path)


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:_NAME])}.{secrets.token_hex(8)}.part")
