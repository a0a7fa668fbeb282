"""A disk that is full, without one: no file grows beyond a few KiB."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def full_disk(at: int = 4096) -> Iterator[None]:
    """Let no file grow beyond `at` bytes: the system refuses the write as that of a full disk, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a folder by its path, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
