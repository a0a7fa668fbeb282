"""Opening zip archives: the directory is checked against the file before a member is read.

An archive may declare members that overlap, lie elsewhere, or are there twice, and its directory may be larger than
what it lists. Two readers of such a file may see different contents, and a small file may inflate without bound.

Source: the zip format (APPNOTE 6.3.10).
"""

import os
import struct
import zipfile
from collections.abc import Collection, Iterable
from typing import BinaryIO

from mksgn.common.errors import first_line
from mksgn.common.quoting import quoted

MEMBERS = 60_000  # spikes.npz has three arrays for each of 5,000 populations; a member's description takes about 1 kB
DIRECTORY_BYTES = 1 << 24  # MEMBERS with names of 200 characters
NAME = 500  # characters
INFLATED_BYTES = 1 << 27  # to which compressed members may inflate in any case; zeros compress to a thousandth
INFLATION = 100  # times their size, to which they may inflate if that is more; sparse spikes compress to a fiftieth
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flags of a member

_END, _LOCATOR, _END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
_MEMBER_HEADER = 30  # bytes before a member's name
_RAISED = (NotImplementedError, struct.error, OverflowError, ValueError, RuntimeError, EOFError)  # by zipfile


def opened(file: BinaryIO) -> zipfile.ZipFile:
    """Open an archive whose directory is consistent. Raises zipfile.BadZipFile, in one line, for any other file."""
    try:
        start = _directory(file)
        archive = zipfile.ZipFile(file)
        _check_members(archive.infolist(), start)
    except _RAISED as error:
        raise zipfile.BadZipFile(first_line(error)) from error
    return archive


def check_readable(members: Collection[zipfile.ZipInfo]) -> None:
    """Raise zipfile.BadZipFile for members that cannot be read, or that together inflate out of proportion."""
    for member in members:
        shown = quoted(member.filename)
        if member.flag_bits & ENCRYPTED:
            raise zipfile.BadZipFile(f"{shown} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(
                f"{shown} has compression {member.compress_type}, supported are stored and deflate"
            )
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise zipfile.BadZipFile(
                f"{shown} is stored uncompressed with two different sizes, {member.file_size:,} and "
                f"{member.compress_size:,} bytes"
            )
    stored, inflated = (sum(getattr(m, name) for m in members) for name in ("compress_size", "file_size"))
    limit = max(INFLATED_BYTES, INFLATION * stored)
    if inflated > limit:
        raise zipfile.BadZipFile(f"{stored:,} bytes that inflate to {inflated:,}, the limit is {limit:,}")


def _directory(file: BinaryIO) -> int:
    """Return the offset of the directory, which lies between the members and the end record."""
    end = file.seek(0, os.SEEK_END) - _END.size
    mark, _, _, _, count, length, start, comment = _unpacked(file, end, _END)
    if mark != b"PK\x05\x06" or comment:
        raise zipfile.BadZipFile("its last bytes are not the end of a zip archive: it was truncated or appended to")
    locator = end - _LOCATOR.size
    mark, _, at, _ = _unpacked(file, locator, _LOCATOR) if locator >= 0 else (b"", 0, 0, 0)
    if mark == b"PK\x06\x07":  # torch writes the 64-bit end for files of any size
        end = locator - _END_64.size
        mark, *_, count, length, start = _unpacked(file, end, _END_64)
        if mark != b"PK\x06\x06" or at != end:
            raise zipfile.BadZipFile("its 64-bit end record is not where its locator says")
    if count > MEMBERS or length > DIRECTORY_BYTES:
        raise zipfile.BadZipFile(f"{count:,} members in a directory of {length:,} bytes, the limit is {MEMBERS:,}")
    if start + length != end:
        raise zipfile.BadZipFile("its directory is not where its end record says")
    return start


def _unpacked(file: BinaryIO, at: int, form: struct.Struct) -> tuple:
    if at < 0:
        raise zipfile.BadZipFile("it is too short for a zip archive")
    file.seek(at)
    return form.unpack(file.read(form.size))


def _check_members(members: Iterable[zipfile.ZipInfo], end: int) -> None:
    """Check names and positions; `end` is where the members end."""
    names: set[str] = set()
    free = 0  # where the next member may begin
    for member in sorted(members, key=lambda each: each.header_offset):
        shown = quoted(member.filename)
        if not 0 < len(member.filename) <= NAME or member.filename != member.orig_filename:
            raise zipfile.BadZipFile(f"a member is named {shown}, expected 1 to {NAME} characters")
        if member.filename in names:
            raise zipfile.BadZipFile(f"two members are named {shown}")
        names.add(member.filename)
        if member.header_offset < free:
            raise zipfile.BadZipFile(f"{shown} overlaps the member before it")
        free = member.header_offset + _MEMBER_HEADER + member.compress_size
        if free > end:
            raise zipfile.BadZipFile(f"{shown} ends at byte {free:,}, after the end of all members at byte {end:,}")
