"""Arrays of .npy and .npz files that are located, and then mapped, without being read.

np.load cannot map a member of an .npz into memory, but np.savez stores members as they are: each
array lies in one piece of the file. Nothing is held, and the archive's checksum, which would take
reading all of it, is not looked at. A compressed member has no such place.

Source: the zip and npy formats.
"""

import io
import math
import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mksgn.common.errors import BadInputError

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a member; its last two say how long the name and the extra field are
_NPY_HEADER = 1000  # bytes at most; numpy writes 128 for plain arrays, and evaluates what it reads as a literal
BROKEN = (zipfile.BadZipFile, NotImplementedError, struct.error, OverflowError, UnicodeError)  # of a damaged archive


@dataclass(frozen=True)
class StoredArray:
    """Where an array's values lie: from byte `offset` of the file on, in C order unless `fortran`."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool = False

    def mapped(self, path: Path) -> np.ndarray:
        """Map the array into memory, read-only. Raises BadInputError if the file is gone or shorter by now."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        order = "F" if self.fortran else "C"
        try:
            return np.memmap(path, self.dtype, "r", self.offset, self.shape, order)  # type: ignore[call-overload]
        except (OSError, ValueError) as error:
            raise BadInputError(f"{path}: cannot be mapped ({error}); leave the file in place") from error


def members(file: io.BufferedReader) -> dict[str, zipfile.ZipInfo]:
    """List an .npz's members by array name. Raises what `BROKEN` names for a file that is no archive."""
    with zipfile.ZipFile(file) as archive:
        return {member.filename.removesuffix(".npy"): member for member in archive.infolist()}


def locate_member(path: Path, file: io.BufferedReader, name: str, member: zipfile.ZipInfo) -> StoredArray:
    """Locate an array of an open .npz.

    Raises:
        BadInputError: The member is encrypted, compressed, damaged, or no array of numbers.
        zipfile.BadZipFile: The archive contradicts itself.
    """
    if member.flag_bits & 1:
        raise BadInputError(f"{path}: {name} is encrypted: decrypt the file first")
    if member.compress_type != zipfile.ZIP_STORED:
        plain = path.with_name(f"{path.stem}_plain.npz").name
        raise BadInputError(
            f"{path}: {name} is compressed, so that no clip can be read by itself: store it plain, in its "
            "folder, with: "
            f'python -c "import numpy as np; np.savez({plain!r}, **np.load({path.name!r}))"'
        )
    # Sizes are in the archive's directory, in their 64-bit form where needed; only here does it say
    # where values begin.
    file.seek(member.header_offset)
    local = file.read(_LOCAL_HEADER.size)
    if len(local) < _LOCAL_HEADER.size or not local.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile(f"no {name} where the directory has it")
    start = member.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(local)[-2:])
    return locate(path, file, name, start, min(member.file_size, os.fstat(file.fileno()).st_size - start))


def locate(path: Path, file: io.BufferedReader, name: str, start: int, size: int) -> StoredArray:
    """Locate an array that is stored in the npy format, `size` bytes from byte `start` of an open file on.

    Raises:
        BadInputError: The bytes are no array of numbers, or too few.
    """
    file.seek(start)
    head = io.BytesIO(file.read(_NPY_HEADER))
    shape, fortran, dtype = _header(path, name, head)
    if dtype.hasobject:
        raise BadInputError(f"{path}: {name} holds Python objects, a pickle, which may run code: save it as numbers")
    expected = head.tell() + math.prod(shape) * dtype.itemsize
    if size < expected:
        raise BadInputError(f"{path}: {name} has {size} bytes, expected {expected}: fetch or write the file again")
    return StoredArray(start + head.tell(), shape, dtype, fortran and len(shape) > 1)


def _header(path: Path, name: str, head: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, Fortran order and dtype; leaves `head` where the values begin."""
    parsers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(head)
        if version not in parsers:
            raise ValueError(f"version {version[0]}.{version[1]} of the npy format")
        shape, fortran, dtype = parsers[version](head)
        if any(length < 0 for length in shape):
            raise ValueError(f"shape {shape}")
    except Exception as error:  # numpy evaluates the header as a literal, which fails in every way that Python can
        problem = str(error).split("\n")[0][:200]
        raise BadInputError(f"{path}: {name} is not an array ({problem}): fetch or write the file again") from error
    return shape, fortran, dtype
