"""Reader of torch.save files that hold dictionaries of plain values and dense tensors, and nothing else.

`torch.load(weights_only=True)` runs no code of a file, but it builds whatever the file's pickle says: tuples nested so
deeply that hashing them ends the process, lists that contain themselves, tensors that declare more than is stored. So
the file is checked first. Each member of the archive has to be there once, uncompressed and with a correct checksum.
The pickle's operations, of which torch's own files use the few in `_Walk`, have to make values of bounded number and
depth. A value counts once for each reference to it, as whoever walks through the result meets it.

Source: torch's serialization.py and _weights_only_unpickler.py; the pickle protocol 2.
"""

import math
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mksgn.common import archives
from mksgn.common.contents import check_content
from mksgn.common.errors import BadInputError, first_line
from mksgn.common.quoting import printable, quoted
from mksgn.common.reading import open_file

FILE_BYTES = 1 << 32  # weights and AdamW's two moments of 350 million parameters; the preset `paper` has 3 million
PICKLE_BYTES = 1 << 24
OPERATIONS = 1_000_000  # a tensor takes 35, an epoch's line 50
VALUES = 500_000
DEPTH = 12  # of containers; an optimiser's state has 4
TEXT = 1 << 20  # characters of a string: settings as JSON
WHOLE = 8  # bytes of a whole number

_ELEMENTS = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1
}  # fmt: skip
_STORAGES = {f"torch {name}Storage": size for name, size in _ELEMENTS.items()}
_ORDERED, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_FACTS = (".format_version", ".storage_alignment", "byteorder", "version", ".data/serialization_id")
_MEMBER = re.compile(rf"[^/]+/(?:({'|'.join(map(re.escape, ('data.pkl', *_FACTS)))})|data/(\d+))")
_SMALL = 100  # bytes of a member other than the pickle and the storages


class _RefusedError(Exception):
    """A file holds something that does not belong in a dictionary of plain values and tensors."""


def read(path: Path, remedy: str) -> Any:
    """Read a file of plain values and dense tensors on the CPU, without running any code of the file.

    Args:
        path: The file.
        remedy: What to do about a file that is refused; ends the message.

    Raises:
        BadInputError: In one line, for a missing, damaged, foreign or hostile file.
    """
    with open_file(path, FILE_BYTES, remedy) as file:
        check_content(path)
        try:
            _check(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises pickle, zip, runtime and EOF errors alike
            raise BadInputError(
                f"{path}: refused: not a file of plain tensors that loads with weights_only=True ({_reason(error)}); "
                f"{remedy}"
            ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, _RefusedError):
        return str(error)
    # torch's own message advises loading with weights_only=False: only its finding is passed on
    refusal = re.search(r"WeightsUnpickler error:\s*(\S.*)", str(error))
    own_words = type(error).__name__ if "weights_only" in str(error) else first_line(error)
    return printable(refusal.group(1) if refusal else own_words)[:160]


def _check(file: Any) -> None:
    if file.read(4) != b"PK\x03\x04":
        raise _RefusedError("not a zip archive, which torch has written since version 1.6")
    try:
        with archives.opened(file) as archive:
            sizes = _stored(archive)
            content = archive.read(f"{archive.namelist()[0].partition('/')[0]}/data.pkl")
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        raise _RefusedError(printable(first_line(error))) from error
    _Walk(content, sizes).run()


def _stored(archive: zipfile.ZipFile) -> dict[str, int]:
    """Check the archive's members and read them once; return the size of each storage in bytes, by its key."""
    folder = archive.namelist()[0].partition("/")[0] if archive.namelist() else ""
    sizes: dict[str, int] = {}
    found = set()
    for member in archive.infolist():
        known = _MEMBER.fullmatch(member.filename)
        if known is None or not member.filename.startswith(f"{folder}/"):
            raise _RefusedError(f"a member {quoted(member.filename)}, which torch.save doesn't write")
        if member.compress_type != zipfile.ZIP_STORED:
            raise _RefusedError(f"{quoted(member.filename)} is compressed, torch.save stores values uncompressed")
        archives.check_readable([member])
        name, key = known.groups()
        limit = FILE_BYTES if key else PICKLE_BYTES if name == "data.pkl" else _SMALL
        if member.file_size > limit:
            raise _RefusedError(f"{quoted(member.filename)} has {member.file_size:,} bytes, the limit is {limit:,}")
        with archive.open(member) as stream:  # to its end, where zipfile compares its checksum
            while stream.read(1 << 20):
                pass
        if key:
            sizes[key] = member.file_size
        found.add(name)
    if "data.pkl" not in found:
        raise _RefusedError("no data.pkl, the list of its values")
    return sizes


@dataclass(eq=False, slots=True)
class _Value:
    """A container, a tensor, or something that makes one."""

    kind: str
    values: int = 1  # with those inside, once for each reference
    depth: int = 0
    items: tuple = ()  # items of a tuple, keys of a dictionary, or number of elements of a storage
    placed: bool = False  # is in another container, so its count must not change any more


class _Walk:
    """Follows a pickle's operations without building the values.

    A list or dictionary must be complete before it is put into another one, as in pickles: so none contains itself.
    """

    def __init__(self, content: bytes, sizes: dict[str, int]):
        self.content, self.sizes = content, sizes
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> None:
        steps: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT"), self.stack.append),
            **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE"), lambda _: self.stack.append(None)),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda index: self.memo.__setitem__(index, self.stack[-1])),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda index: self.stack.append(self.memo[index])),
            **dict.fromkeys(("APPENDS", "SETITEMS"), lambda _: self.fill(self.popped_to_mark())),
            "PROTO": lambda version: _require(version == 2, f"protocol {version}, torch writes 2"),
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "LONG1": self.whole,
            "BINUNICODE": self.text,
            "EMPTY_TUPLE": lambda _: self.stack.append(_Value("tuple")),
            "EMPTY_LIST": lambda _: self.stack.append(_Value("list")),
            "EMPTY_DICT": lambda _: self.stack.append(_Value("dict")),
            "TUPLE": lambda _: self.stack.append(_tuple(self.popped_to_mark())),
            "TUPLE1": lambda _: self.stack.append(_tuple(self.popped(1))),
            "TUPLE2": lambda _: self.stack.append(_tuple(self.popped(2))),
            "TUPLE3": lambda _: self.stack.append(_tuple(self.popped(3))),
            "APPEND": lambda _: self.fill(self.popped(1)),
            "SETITEM": lambda _: self.fill(self.popped(2)),
            "GLOBAL": self.name,
            "BINPERSID": lambda _: self.storage(),
            "REDUCE": lambda _: self.call(),
            "BUILD": lambda _: self.attributes(),
        }
        end = 0
        try:
            for number, (operation, argument, position) in enumerate(pickletools.genops(self.content)):
                if number >= OPERATIONS:
                    raise _RefusedError(f"more than {OPERATIONS:,} operations in its pickle")
                if operation.name == "STOP":
                    end = (position or 0) + 1
                    break
                step = steps.get(operation.name)
                if step is None:
                    raise _RefusedError(f"{operation.name} in its pickle, which torch.save doesn't write")
                step(argument)
        except (ValueError, IndexError, KeyError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
            raise _RefusedError(f"its pickle is damaged ({printable(first_line(error))})") from error
        _require(
            end == len(self.content) and len(self.stack) == 1 and not self.marks,
            "its pickle does not end where it should",
        )

    def popped(self, count: int) -> list[Any]:
        _require(len(self.stack) - count >= (self.marks[-1] if self.marks else 0), "its pickle is damaged")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def popped_to_mark(self) -> list[Any]:
        items = self.popped(len(self.stack) - self.marks[-1])
        self.marks.pop()
        return items

    def whole(self, value: int) -> None:
        if value.bit_length() >= 8 * WHOLE:
            raise _RefusedError(f"a whole number of {value.bit_length():,} bits, torch has {8 * WHOLE}")
        self.stack.append(value)

    def text(self, value: str) -> None:
        if len(value) > TEXT:
            raise _RefusedError(f"a text of {len(value):,} characters, the limit is {TEXT:,}")
        value.encode()  # a lone surrogate is an error
        self.stack.append(value)

    def fill(self, items: Sequence[Any]) -> None:
        """Put items into the list on top of the stack, or alternating keys and values into the dictionary there."""
        target = self.popped(1)[0]
        self.stack.append(target)
        _require(
            isinstance(target, _Value) and target.kind in ("list", "dict"),
            "its pickle fills something that is not a container",
        )
        if target.kind == "dict":
            _require(len(items) % 2 == 0, "a key without a value")
            for key in items[::2]:
                if type(key) not in (str, int):
                    raise _RefusedError(f"{_kind(key)} as a key, expected text or a whole number")
            target.items += tuple(items[::2])
        _place(items)
        _require(not target.placed, "a container that is changed after it was put into another one")
        _count(target, items)

    def name(self, name: str) -> None:
        if name not in (_ORDERED, _TENSOR) and name not in _STORAGES:
            raise _RefusedError(
                f"it names {quoted(name.replace(' ', '.'))}, which is not a dense tensor of real numbers"
            )
        self.stack.append(_Value(f"name {name}"))

    def storage(self) -> None:
        (place,) = self.popped(1)
        match place:
            case _Value(kind="tuple", items=("storage", _Value(kind=kind), str(key), str(), int(count))):
                element = _STORAGES.get(kind.removeprefix("name "))
            case _:
                raise _RefusedError("it names a storage in a different way from torch.save")
        if element is None or count * element != self.sizes.get(key):
            has = f"{self.sizes[key]:,} bytes" if key in self.sizes else "no bytes"
            raise _RefusedError(f"storage {quoted(key)} has {has} for {count:,} values")
        self.stack.append(_Value("storage", items=(count,)))

    def call(self) -> None:
        called, given = self.popped(2)
        match called, given:
            case _Value(kind="name collections OrderedDict"), _Value(kind="tuple", items=()):
                self.stack.append(_Value("dict"))
            case (
                _Value(kind="name torch._utils _rebuild_tensor_v2"),
                _Value(
                    kind="tuple",
                    items=(
                        _Value(kind="storage", items=(stored,)),
                        int(offset),
                        _Value(kind="tuple", items=shape),
                        _Value(kind="tuple", items=strides),
                        None,  # requires_grad: True or False
                        _Value(kind="dict", values=1),
                    ),
                ),
            ):
                _check_extent(stored, offset, shape, strides)
                self.stack.append(_Value("tensor"))
            case _:
                raise _RefusedError("it calls something that does not make a dense tensor")

    def attributes(self) -> None:
        """Allow a state_dict's `_metadata`, the versions of its modules, and no other attribute."""
        target, state = self.popped(2)
        metadata = _kind(target) == _kind(state) == "dict" and state.items == ("_metadata",)
        _require(metadata, "it sets attributes, other than a state_dict's _metadata")
        _place([state])
        _require(not target.placed, "a container that is changed after it was put into another one")
        _count(target, [state])
        self.stack.append(target)


def _check_extent(stored: int, offset: int, shape: tuple, strides: tuple) -> None:
    """Check that a tensor lies in its storage, and declares no more values than the storage has."""
    numbers = (offset, *shape, *strides)
    _require(
        len(shape) == len(strides) and all(type(n) is int and n >= 0 for n in numbers),
        "a tensor without a valid extent",
    )
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count > stored or (count and last >= stored):
        raise _RefusedError(f"a tensor of {count:,} values up to value {last:,} in a storage of {stored:,}")


def _tuple(items: Sequence[Any]) -> _Value:
    made = _Value("tuple", items=tuple(items))
    _place(items)
    _count(made, items)
    return made


def _place(items: Sequence[Any]) -> None:
    for item in items:
        if isinstance(item, _Value):
            item.placed = True


def _count(target: _Value, items: Sequence[Any]) -> None:
    for item in items:
        values, depth = (item.values, item.depth) if isinstance(item, _Value) else (1, 0)
        target.values += values
        target.depth = max(target.depth, depth + 1)
    if target.values > VALUES:
        raise _RefusedError(f"more than {VALUES:,} values, counting repeated ones each time")
    if target.depth > DEPTH:
        raise _RefusedError(f"containers nested more than {DEPTH} deep")


def _kind(value: Any) -> str:
    return value.kind if isinstance(value, _Value) else type(value).__name__


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _RefusedError(otherwise)
