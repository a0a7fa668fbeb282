"""Opening HDF5: only regular files, whose structure is walked and bounded before any value is read.

The HDF5 library follows links into other files, inflates without limit, and hangs or crashes on damaged heaps of text.
It never gets that far: the walk refuses whatever no file of mksgn, nir or lava-dl needs.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, prod
from pathlib import Path
from typing import Any, BinaryIO

import h5py
from h5py import h5, h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z

from mksgn.common.contents import check_content
from mksgn.common.errors import BadInputError
from mksgn.common.hdf5_text import ATTRIBUTE_BYTES, Texts, check_heaps
from mksgn.common.quoting import quoted
from mksgn.common.reading import open_file

SIGNATURE = b"\x89HDF\r\n\x1a\n"
FILE_BYTES = 1 << 34  # four billion weights, more than any stage can hold
OBJECTS = 1 << 18  # a node has up to ten data sets: 26,000 nodes, where the largest portable student has 3,000
DEPTH = 64  # a nested graph takes two groups: 31 levels of graphs, where frameworks write two or three
NAME_BYTES = 1 << 10  # frameworks join the names of modules; h5py and our messages repeat names
CHUNKS = 1 << 17  # h5py's are of 8 kB to 1 MB: 128 GB
# What a file may declare beyond the bytes it has. Parameters with one value for all neurons of a population compress a
# thousandfold: a Loihi 2 chip has a million neurons of five parameters, which take 20 MB.
DECLARED, PER_STORED_BYTE = 1 << 29, 64
INFLATED = 96 << 20  # of one chunk: HDF5 does not check its size against what its bytes inflate to
RATIOS = {h5z.FILTER_DEFLATE: 1032, h5z.FILTER_LZF: 88}  # most bytes to which a stored byte inflates
FILTERS = {*RATIOS, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}  # HDF5 would load others from a folder of plug-ins
ATTRIBUTES = 64  # of one object; nir's recordings have three


def is_hdf5(path: Path) -> bool:
    """Tell whether a path names a regular file that begins as HDF5 does."""
    if not path.is_file():
        return False
    with open_file(path, None) as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


@contextmanager
def opened(path: Path, what: str, remedy: str, *, attributes: bool = False) -> Iterator[h5py.File]:
    """Open an HDF5 file whose whole content can be read safely.

    For damage below the level of its structure, the HDF5 library raises errors of any class.

    Args:
        path: The file.
        what: What it should be, such as "a NIR file".
        remedy: What to do where there is no such file.
        attributes: Whether attributes will be read too.

    Raises:
        BadInputError: Not a regular HDF5 file, or one that refers to content elsewhere or exceeds a limit.
    """
    with open_file(path, FILE_BYTES, remedy) as stored:
        check_content(path)
        if stored.read(len(SIGNATURE)) != SIGNATURE:
            raise BadInputError(
                f"{path}: is not an HDF5 file, as {what} must be; name another file, or export it again"
            )
        if attributes:
            check_heaps(path, stored)
        with h5py.File(stored, "r") as file:
            _Walk(path, file, stored, attributes=attributes).run()
            yield file


class _Walk:
    """Visits each object of a file once, and reads none of its values but the references to text."""

    def __init__(self, path: Path, file: h5py.File, stored: BinaryIO, *, attributes: bool) -> None:
        self.path, self.file, self.attributes = path, file, attributes
        self.size = stored.seek(0, 2)
        self.texts = Texts(path, stored, self.size)
        self.objects = self.declared = self.chunks = 0

    def refuse(self, place: str, what: str, remedy: str = "write the file again") -> BadInputError:
        return BadInputError(f"{self.path}: {quoted(place)} {what}; {remedy}")

    def run(self) -> None:
        if self.file.id.get_create_plist().get_sizes() != (8, 8):
            raise self.refuse("/", "does not use addresses of 8 bytes")
        root = h5g.open(self.file.id, b"/")
        seen, waiting = {h5o.get_info(root).addr}, [("", root)]
        self.check_attributes("/", root)
        while waiting:
            place, group = waiting.pop()
            for name in self.names(place, group):
                inner, item = f"{place}/{name.decode('utf-8', 'backslashreplace')}", h5o.open(group, name)
                address = h5o.get_info(item).addr
                if address in seen:
                    raise self.refuse(inner, "is a second name of an object in this file", "replace it with a copy")
                seen.add(address)
                self.check_attributes(inner, item)
                if isinstance(item, h5g.GroupID):
                    waiting.append((inner, item))
                elif isinstance(item, h5d.DatasetID):
                    self.check_dataset(inner, item)
                else:
                    raise self.refuse(inner, "is neither a group nor a data set", "leave it out")

    def names(self, place: str, group: h5g.GroupID) -> list[bytes]:
        """Return the names in a group, which are links to objects of this file."""
        found: list[tuple[bytes, int]] = []

        def note(name: bytes, info: Any) -> bool | None:
            found.append((name, info.type))
            return True if self.objects + len(found) > OBJECTS else None

        # In storage order: for any other order HDF5 first builds a table of all links
        group.links.iterate(note, info=True, order=h5.ITER_NATIVE)
        self.objects += len(found)
        if self.objects > OBJECTS:
            raise self.refuse(
                place or "/", f"brings the file to more than {OBJECTS:,} objects, the limit", "split the file"
            )
        if found and place.count("/") >= DEPTH:
            raise self.refuse(place, f"is nested more than {DEPTH} groups deep, the limit", "flatten the graph")
        for name, kind in found:
            if len(name) > NAME_BYTES:
                raise self.refuse(place or "/", f"holds a name of {len(name):,} bytes, the limit is {NAME_BYTES:,}")
            if kind != h5l.TYPE_HARD:
                inner = f"{place}/{name.decode('utf-8', 'backslashreplace')}"
                raise self.refuse(inner, "is a link, perhaps into another file", "replace it with a copy of its target")
        return [name for name, _ in found]

    def check_attributes(self, place: str, item: Any) -> None:
        """Check the attributes of an object: few, and numbers or text of a bounded size."""
        if not self.attributes:
            return
        count = h5o.get_info(item).num_attrs
        if count > ATTRIBUTES:
            raise self.refuse(place, f"has {count:,} attributes, the limit is {ATTRIBUTES}", "leave them out")
        for index in range(count):
            attribute = h5a.open(item, index=index)
            kind, size = self.kind(place, attribute.get_type()), prod(attribute.shape) * attribute.get_type().get_size()
            if size > ATTRIBUTE_BYTES or (kind == "text" and prod(attribute.shape) > 1):
                raise self.refuse(place, f"has an attribute of {size:,} bytes, the limit is {ATTRIBUTE_BYTES:,}")

    def kind(self, place: str, stored: h5t.TypeID) -> str:
        """Return "text" for strings of variable length, "bytes" for those of fixed length, and else "numbers"."""
        kind = stored.get_class()
        if kind == h5t.STRING:
            return "text" if stored.is_variable_str() else "bytes"
        plain = kind in (h5t.INTEGER, h5t.FLOAT) and stored.get_size() <= 8
        if (plain or (kind == h5t.ENUM and stored.dtype == bool)) and stored.equal(h5t.py_create(stored.dtype)):
            return "numbers"
        named = _KINDS.get(kind, "numbers of an unusual format")
        raise self.refuse(place, f"holds {named}, expected integers, floating point up to 64 bits, or text")

    def check_dataset(self, place: str, dataset: h5d.DatasetID) -> None:
        """Check where a data set's values lie, what kind they are, and how many."""
        plan, space = dataset.get_create_plist(), dataset.get_space()
        layout = plan.get_layout()
        if layout == h5d.VIRTUAL or plan.get_external_count():
            raise self.refuse(place, "has its values in another file", "copy them into this file")
        stored = dataset.get_type()
        kind = self.kind(place, stored)
        if space.get_simple_extent_type() == h5s.NULL:
            raise self.refuse(place, "holds no value", "leave it out, or write a value")
        elements, width = prod(dataset.shape), stored.get_size()
        self.declared += elements * width
        limit = DECLARED + PER_STORED_BYTE * self.size
        if self.declared > limit:
            raise self.refuse(
                place,
                f"declares {elements:,} elements, which brings the file to {self.declared:,} declared bytes; the limit "
                f"for a file of {self.size:,} bytes is {limit:,}",
                "store every value, or split the file",
            )
        if elements and not dataset.get_storage_size():
            raise self.refuse(place, f"declares {elements:,} elements and stores none", "write its values")
        if layout == h5d.CHUNKED:
            self.check_chunks(place, dataset, plan, width)
        if kind == "text":
            self.texts.check(place, elements, dataset.get_offset() if layout == h5d.CONTIGUOUS else None)

    def check_chunks(self, place: str, dataset: h5d.DatasetID, plan: Any, width: int) -> None:
        """Check that as many chunks are stored as declared, and that none inflates to more than it declares."""
        filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
        if not FILTERS.issuperset(filters) or len(set(filters)) < len(filters):
            raise self.refuse(place, "has a compression that is not supported", "compress it with gzip")
        shape, chunk = dataset.shape, plan.get_chunk()
        declared, expected = prod(chunk) * width, prod(ceil(n / m) for n, m in zip(shape, chunk, strict=True))
        if declared > prod(shape) * width + INFLATED:
            raise self.refuse(place, f"has chunks of {declared:,} bytes, more than its values need")
        self.chunks += expected
        if self.chunks > CHUNKS:
            raise self.refuse(
                place, f"brings the file to more than {CHUNKS:,} chunks, the limit", "write larger chunks"
            )
        found: list[Any] = []

        def note(info: Any) -> bool | None:
            found.append(info)
            return True if len(found) > expected else None

        dataset.chunk_iter(note)
        if len(found) != expected:
            raise self.refuse(
                place, f"declares {expected:,} chunks and stores {'fewer' if len(found) < expected else 'more'}"
            )
        ratio = max((RATIOS[code] for code in filters if code in RATIOS), default=1)
        for info in found:
            if info.size * ratio > max(INFLATED, declared) and not self.fits(dataset, info, filters, declared):
                raise self.refuse(
                    place, f"has a chunk that decompresses to more than the {declared:,} bytes it declares"
                )

    @staticmethod
    def fits(dataset: h5d.DatasetID, info: Any, filters: list[int], declared: int) -> bool:
        """Tell whether a chunk that could inflate to far more inflates to at most what it declares."""
        if info.filter_mask or h5z.FILTER_DEFLATE not in filters:
            return info.size <= declared + 4  # fletcher32's checksum
        _, content = dataset.read_direct_chunk(info.chunk_offset)
        return len(zlib.decompressobj().decompress(content, declared + 5)) <= declared + 4


_KINDS = {
    h5t.COMPOUND: "records or complex numbers",
    h5t.REFERENCE: "references",
    h5t.VLEN: "sequences of variable length",
    h5t.OPAQUE: "opaque bytes",
    h5t.BITFIELD: "bits",
    h5t.ARRAY: "arrays as elements",
    h5t.ENUM: "an enumeration",
} | ({h5t.COMPLEX: "complex numbers"} if hasattr(h5t, "COMPLEX") else {})
