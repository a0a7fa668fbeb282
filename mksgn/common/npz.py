"""Arrays of numbers in .npy and .npz files: located and then mapped, without being read, or read whole.

np.load cannot map a member of an .npz into memory, but np.savez stores members uncompressed: each
array lies in one piece of the file. When it is mapped, nothing is held in memory, and the archive's
checksum is not compared, since that means reading it all. A compressed member cannot be mapped.

What a file declares is checked against what it stores before anything is allocated.

Source: the zip and npy formats.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mksgn.common import archives
from mksgn.common.contents import check_content
from mksgn.common.errors import BadInputError, first_line
from mksgn.common.quoting import printable, quoted
from mksgn.common.reading import open_file

LOADED = 1 << 32  # bytes of all arrays of a file that are read whole; larger files are mapped (npz:FILE, npy:FILE)
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a member; its last two say how long the name and the extra field are
_NPY_HEADER = 1000  # bytes at most; numpy writes 128 for plain arrays, and evaluates what it reads as a literal
MOST_AXES = 32  # of an array; numpy 1 has no more
_LARGEST = 1 << 62  # bytes of an array, empty axes counted as 1: numpy's and the system's integers hold them
_BLOCK = 1 << 20
BROKEN = (zipfile.BadZipFile, NotImplementedError, struct.error, OverflowError, UnicodeError)  # of a damaged archive
_BROKEN_MEMBER = (*BROKEN, zlib.error, EOFError, RuntimeError, OSError)


@dataclass(frozen=True)
class StoredArray:
    """Where an array's values lie: from byte `offset` of the file on, in C order unless `fortran`."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool = False

    @property
    def size(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def mapped(self, path: Path) -> np.ndarray:
        """Map the array into memory, read-only. Raises BadInputError if the file has gone or become shorter."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        order = "F" if self.fortran else "C"
        try:
            return np.memmap(path, self.dtype, "r", self.offset, self.shape, order)  # type: ignore[call-overload]
        except (OSError, ValueError) as error:
            raise BadInputError(f"{path}: cannot be mapped ({error}); leave the file in place") from error

    def of(self, content: np.ndarray) -> np.ndarray:
        """Make the array from the bytes of its values."""
        return content.view(self.dtype).reshape(self.shape, order="F" if self.fortran else "C")


def read(
    path: Path, remedy: str, *, wanted: Callable[[str], bool] = lambda name: True, limit: int = LOADED
) -> dict[str, np.ndarray]:
    """Read an .npz of numbers into memory, without running anything.

    Args:
        path: The file.
        remedy: What to do about a file that is refused; ends the messages.
        wanted: Which arrays, by name.
        limit: Most bytes that these may have together.

    Raises:
        BadInputError: In one line, for a file that is missing, damaged, not an .npz of numbers, or would become too
            large.
    """
    with open_file(path, None, remedy) as file:
        check_content(path, remedy)
        try:
            with archives.opened(file) as archive:
                chosen = {name: member for name, member in _arrays_of(archive).items() if wanted(name)}
                archives.check_readable(chosen.values())
                total = sum(member.file_size for member in chosen.values())
                if total > limit:
                    raise zipfile.BadZipFile(f"its arrays have {total:,} bytes, the limit is {limit:,}")
                return {name: _inflated(path, archive, name, member, remedy) for name, member in chosen.items()}
        except _BROKEN_MEMBER as error:
            raise BadInputError(f"{path}: cannot be read ({first_line(error)}); {remedy}") from error


def read_npy(path: Path, remedy: str, *, limit: int = LOADED) -> np.ndarray:
    """Read a .npy of numbers into memory. Raises BadInputError as `read`."""
    with open_file(path, None, remedy) as file:
        check_content(path, remedy)
        stored = locate(path, file, path.name, 0, os.fstat(file.fileno()).st_size)
        _check_numbers(path, path.name, stored.dtype, remedy)
        if stored.size > limit:
            raise BadInputError(f"{path}: has {stored.size:,} bytes of values, the limit is {limit:,}; {remedy}")
        file.seek(stored.offset)
        return stored.of(np.fromfile(file, np.uint8, stored.size))


def is_npy(path: Path) -> bool:
    """Tell whether a file starts as a .npy does. Raises BadInputError if it cannot be opened."""
    with open_file(path, None) as file:
        return file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX


def members(file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """List an .npz's members by array name. Raises one of `BROKEN` for a file that is not an archive of arrays."""
    with archives.opened(file) as archive:
        return _arrays_of(archive)


def _arrays_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    listed = archive.infolist()
    for member in listed:
        if not member.filename.endswith(".npy"):
            raise zipfile.BadZipFile(f"it holds {quoted(member.filename)}, which is not an array")
    return {member.filename.removesuffix(".npy"): member for member in listed}


def found(names: Iterable[str]) -> str:
    """List names of arrays for a message: the first ones, with escapes for what a terminal would act on."""
    return printable(", ".join(sorted(names)[:6])[:200]) or "none"


def locate_member(path: Path, file: BinaryIO, name: str, member: zipfile.ZipInfo) -> StoredArray:
    """Locate an array of an open .npz.

    Raises:
        BadInputError: The member is encrypted, compressed, damaged, or not an array of numbers.
        zipfile.BadZipFile: The archive contradicts itself.
    """
    if member.flag_bits & archives.ENCRYPTED:
        raise BadInputError(f"{path}: {printable(name)} is encrypted: decrypt the file first")
    if member.compress_type != zipfile.ZIP_STORED:
        plain = path.with_name(f"{path.stem}_plain.npz").name
        raise BadInputError(
            f"{path}: {printable(name)} is compressed, so single clips cannot be read: store it uncompressed by "
            "running, in its folder: "
            f'python -c "import numpy as np; np.savez({plain!r}, **np.load({path.name!r}))"'
        )
    archives.check_readable([member])
    # Sizes are in the archive's directory, in their 64-bit form where needed; only the local header
    # says where values begin.
    file.seek(member.header_offset)
    local = file.read(_LOCAL_HEADER.size)
    if len(local) < _LOCAL_HEADER.size or not local.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile(f"no {printable(name)} where the directory says it is")
    start = member.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(local)[-2:])
    return locate(path, file, name, start, min(member.file_size, os.fstat(file.fileno()).st_size - start))


def locate(path: Path, file: BinaryIO, name: str, start: int, size: int) -> StoredArray:
    """Locate an array that is stored in the npy format, `size` bytes from byte `start` of an open file on.

    Raises:
        BadInputError: The bytes are not an array of numbers, or too few.
    """
    file.seek(start)
    stored = _described(path, name, io.BytesIO(file.read(_NPY_HEADER)), "fetch or write the file again")
    if size < stored.offset + stored.size:
        raise BadInputError(
            f"{path}: {printable(name)} has {size} bytes, expected {stored.offset + stored.size}: fetch or write the "
            "file again"
        )
    return StoredArray(start + stored.offset, stored.shape, stored.dtype, stored.fortran)


def _inflated(path: Path, archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo, remedy: str) -> np.ndarray:
    """Read a member to its end, where zipfile compares its checksum."""
    with archive.open(member) as stream:
        head = stream.read(_NPY_HEADER)
        stored = _described(path, name, io.BytesIO(head), remedy)
        _check_numbers(path, name, stored.dtype, remedy)
        if member.file_size != stored.offset + stored.size:
            raise zipfile.BadZipFile(
                f"{quoted(name)} has {member.file_size:,} bytes, expected {stored.offset + stored.size:,}"
            )
        content = np.empty(stored.size, np.uint8)
        view = content.data
        done = min(len(head) - stored.offset, stored.size)
        view[:done] = head[stored.offset : stored.offset + done]
        while done < stored.size:
            block = stream.read(min(_BLOCK, stored.size - done))
            if not block:
                raise zipfile.BadZipFile(f"{quoted(name)} ends after {done:,} of {stored.size:,} bytes")
            view[done : done + len(block)] = block
            done += len(block)
        if stream.read(1):
            raise zipfile.BadZipFile(f"{quoted(name)} has more bytes than it declares")
    return stored.of(content)


def _described(path: Path, name: str, head: io.BytesIO, remedy: str) -> StoredArray:
    """Read an array's header; the offset is relative to its start."""
    try:
        shape, fortran, dtype = _header(head)
    except Exception as error:  # numpy evaluates the header as a literal, which fails in every way that Python can
        problem = printable(str(error).split("\n")[0])[:200]
        raise BadInputError(f"{path}: {printable(name)} is not an array ({problem}): {remedy}") from error
    if dtype.hasobject:
        raise BadInputError(
            f"{path}: {printable(name)} holds pickled Python objects, which may run code: save it as numbers, or "
            f"{remedy}"
        )
    return StoredArray(head.tell(), shape, dtype, fortran and len(shape) > 1)


def _check_numbers(path: Path, name: str, dtype: np.dtype, remedy: str) -> None:
    if dtype.kind not in "biuf":
        raise BadInputError(f"{path}: {printable(name)} holds {quoted(str(dtype))}, expected numbers: {remedy}")


def _header(head: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, Fortran order and dtype; leaves `head` where the values begin."""
    parsers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(head)
    if version not in parsers:
        raise ValueError(f"version {version[0]}.{version[1]} of the npy format")
    shape, fortran, dtype = parsers[version](head)
    if any(length < 0 for length in shape) or len(shape) > MOST_AXES:
        raise ValueError(f"shape {shape}")
    if not dtype.itemsize or math.prod(max(length, 1) for length in shape) * dtype.itemsize > _LARGEST:
        raise ValueError(f"{dtype} of shape {shape}")
    return shape, fortran, dtype
