"""Files that are written whole or not at all."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.part")
_NAME = 200  # bytes of the final name in a temporary one; file systems take 255


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a new, empty file beside `path`, and move that file to `path` at the end.

    The name cannot be foreseen and the file is created here, so that no link is followed and nobody else's file is
    written. The content is on the disk before it has the final name. A link at `path` is replaced, not followed.
    """
    temporary = path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:_NAME])}.{secrets.token_hex(8)}.part")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        with suppress(OSError):  # some file systems do not know it for a folder; the file is whole in any case
            _to_disk(path.parent)
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)  # the error of a full disk has no name, others that of the temporary file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, *names: str) -> None:
    """Remove what killed writers of these files left in a folder, which must be locked."""
    for name in names:
        for path in folder.glob(f".{name}.*.part"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
