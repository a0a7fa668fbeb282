"""What may be in place of a file's content: nothing, or a Git LFS pointer."""

from pathlib import Path

from mksgn.common.errors import BadInputError

LFS_SIGNATURE = b"version https://git-lfs.github.com/spec/"


def check_pointer(path: Path) -> None:
    """Raise BadInputError for a Git LFS pointer in place of the file."""
    with path.open("rb") as file:
        if file.read(len(LFS_SIGNATURE)) == LFS_SIGNATURE:
            raise BadInputError(
                f"{path}: is a Git LFS pointer, not the file itself; run git lfs pull in its repository, or download "
                "the file"
            )


def check_content(path: Path, remedy: str = "fetch the file again") -> None:
    """Raise BadInputError for an empty file, with `remedy`, and for a Git LFS pointer in place of the file."""
    if not path.stat().st_size:
        raise BadInputError(f"{path}: is empty, 0 bytes; its copy or download ended early: {remedy}")
    check_pointer(path)
