"""Text of variable length in HDF5, which lies in heaps: checked before the HDF5 library reads it.

That library (2.0.0) trusts the sizes in a heap. If one is damaged, it loops for ever, or copies beyond its buffer.
A data set of text is an array of references: length (4 bytes), address of a heap (8), index in it (4).
"""

import mmap
import struct
from pathlib import Path
from typing import BinaryIO

from mksgn.common.errors import BadInputError
from mksgn.common.quoting import quoted

TEXTS = 1 << 21  # a million edges, of two names each
TEXT_BYTES = 1 << 26  # of all text in a file, counted once for each reference; a student's metadata are 20 kB
ATTRIBUTE_BYTES = 1 << 12  # of an attribute's text: the size of HDF5's own buffer for it; nir's longest has 16
_HEAP, _MAGIC = struct.Struct("<4sB3xQ"), b"GCOL"  # signature, version 1, size with this header
_OBJECT = struct.Struct("<HHIQ")  # index, number of references, unused, size
_REFERENCE = struct.Struct("<IQI")


class Texts:
    """The text of one file.

    Args:
        path: For messages.
        stored: The file.
        size: Its bytes.
    """

    def __init__(self, path: Path, stored: BinaryIO, size: int) -> None:
        self.path, self.stored, self.size = path, stored, size
        self.count = self.bytes = 0
        self.heaps: dict[int, dict[int, int]] = {}

    def check(self, place: str, elements: int, offset: int | None) -> None:
        """Check the references of a data set at `offset`; None where it is in chunks.

        Raises:
            BadInputError: A reference that leads to no text of its length, too much text, or text in chunks.
        """
        if offset is None:
            raise BadInputError(f"{self.path}: {quoted(place)} holds text in chunks; write it without compression")
        self.count += elements
        if self.count > TEXTS:
            raise BadInputError(f"{self.path}: holds {self.count:,} strings, the limit is {TEXTS:,}; split the graph")
        content = self.read(offset, elements * _REFERENCE.size)
        if len(content) < elements * _REFERENCE.size:
            raise self.damaged(place)
        for length, address, index in _REFERENCE.iter_unpack(content):
            self.bytes += length
            if self.bytes > TEXT_BYTES:
                raise BadInputError(f"{self.path}: holds more than {TEXT_BYTES:,} bytes of text; shorten its metadata")
            if not length and not address:
                continue
            if address not in self.heaps:
                self.heaps[address] = self.heap(address, place)
            if self.heaps[address].get(index) != length:
                raise self.damaged(place)

    def heap(self, address: int, place: str) -> dict[int, int]:
        header = self.read(address, _HEAP.size)
        magic, version, size = _HEAP.unpack(header) if len(header) == _HEAP.size else (b"", 0, 0)
        sizes = None
        if (magic, version) == (_MAGIC, 1) and _HEAP.size <= size <= self.size - address:
            sizes = _sizes(self.read(address, size))
        if sizes is None:
            raise self.damaged(place)
        return sizes

    def read(self, offset: int, length: int) -> bytes:
        if offset > self.size:
            return b""
        self.stored.seek(offset)
        return self.stored.read(length)

    def damaged(self, place: str) -> BadInputError:
        return BadInputError(f"{self.path}: the text of {quoted(place)} is damaged; copy or export the file again")


def check_heaps(path: Path, stored: BinaryIO) -> None:
    """Check every heap of a file, for text that no data set refers to: that of attributes.

    Raises:
        BadInputError: A heap is damaged, or has text that is longer than an attribute's.
    """
    with mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_MAGIC + b"\1")
        while at >= 0:
            size = _HEAP.unpack_from(content, at)[2] if at + _HEAP.size <= len(content) else 0
            sizes = _sizes(content[at : at + size]) if _HEAP.size <= size <= len(content) - at else None
            if sizes is None:
                raise BadInputError(f"{path}: the text of its attributes is damaged; copy or record the file again")
            if max(sizes.values(), default=0) > ATTRIBUTE_BYTES:
                raise BadInputError(f"{path}: has attributes of more than {ATTRIBUTE_BYTES:,} bytes; shorten them")
            at = content.find(_MAGIC + b"\1", at + size)


def _sizes(heap: bytes) -> dict[int, int] | None:
    """Return the size of each text in a heap by its index; None for a heap that HDF5 would not have written."""
    sizes: dict[int, int] = {}
    at = _HEAP.size
    while at + _OBJECT.size <= len(heap):
        index, _, _, size = _OBJECT.unpack_from(heap, at)
        step = size if index == 0 else _OBJECT.size + -(-size // 8) * 8  # 0 is the free space, header included
        if step < _OBJECT.size or step > len(heap) - at or index in sizes:
            return None
        sizes[index] = size
        at += step
    sizes.pop(0, None)
    return sizes
