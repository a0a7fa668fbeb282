"""What stands in the place of a file: nothing, a pointer of Git LFS, or a file of another kind."""

from pathlib import Path

import h5py

from mksgn.common.errors import BadInputError

LFS_SIGNATURE = b"version https://git-lfs.github.com/spec/"


def check_pointer(path: Path) -> None:
    """Raise BadInputError for a Git LFS pointer in place of the file."""
    with path.open("rb") as file:
        if file.read(len(LFS_SIGNATURE)) == LFS_SIGNATURE:
            raise BadInputError(
                f"{path}: is a pointer of Git LFS, not the file itself; run git lfs pull in its repository, or download "
                "the file"
            )


def check_content(path: Path) -> None:
    """Raise BadInputError for an empty file, and for a Git LFS pointer in place of the file."""
    if not path.stat().st_size:
        raise BadInputError(f"{path}: is empty, 0 bytes; its copy or download ended early: fetch the file again")
    check_pointer(path)


def check_hdf5(path: Path, what: str) -> None:
    """Raise BadInputError unless `path` is an HDF5 file; `what` it should be, such as "a NIR file"."""
    check_content(path)
    if not h5py.is_hdf5(path):
        raise BadInputError(f"{path}: is no HDF5 file, as {what} is; name another file, or export it again")


def check_own_content(path: Path, group: h5py.Group) -> None:
    """Raise BadInputError where an HDF5 file names content of another file, or a link within it."""
    for name in group:
        item = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if item is None or (isinstance(item, h5py.Dataset) and (item.is_virtual or item.external)):
            raise BadInputError(f"{path}: {name!r} in {group.name} is a link, or in another file; copy it into place")
        if isinstance(item, h5py.Group):
            check_own_content(path, item)
