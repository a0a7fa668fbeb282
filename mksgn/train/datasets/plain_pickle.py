"""Reads a pickle of numpy arrays and plain containers, and runs nothing.

A pickle is a program: the usual loader imports and calls whatever it names. pickle.Unpickler with a find_class that
permits a few names does not tame it, since a file needs no name to do harm. A dict's key of 400,000 tuples in one another,
400 kB, crashes the interpreter when it is hashed; 29 lines of "a pair of the last with itself" take seconds to hash, and each more
takes twice as long; a memo index of 2**28, nine bytes in all, has the C loader take 4 GB, and a larger one all there is.

So nothing is unpickled here. `_Machine` interprets the operations that plain containers, strings, numbers and numpy's
arrays of numbers need, and has no way to import, call or set anything; only strings and integers are hashed. It is bounded by the size
of the file: at most OPERATIONS in all and one per BYTES_PER_OPERATION (after a few), each of which takes a hundred bytes
or two. An array never claims more bytes than lie behind it, and stays in the file until it is read; but a pickle
may hold one array many times, so a reader of them all compares the sum of their `stored` with the size of the file.

Source: the opcodes as in Python's pickletools, protocols 2 to 5; numpy's ndarray.__reduce__ and __reduce_ex__,
dtype.__reduce__.
"""

from __future__ import annotations

import io
import math
import os
import re
import reprlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.common.errors import BadInputError

OPERATIONS = 15_000_000  # about 10 s on one core; 114,000 arrays with a name and a label each take a third of them
BYTES_PER_OPERATION = 8  # of the file, at least, beyond the first FREE_OPERATIONS; a file of arrays has hundreds
FREE_OPERATIONS = 100_000
SHORT = 256  # bytes: strings up to here are names and keys, and read at once; longer ones are values, and stay
_NUMBERS = frozenset(kind + size for kind in "iu" for size in "1248") | {"f2", "f4", "f8", "b1"}
_GLOBALS = {
    "numpy": ("ndarray", "dtype"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),  # numpy 2
    "numpy.core.numeric": ("_frombuffer",),  # protocol 5
    "numpy._core.numeric": ("_frombuffer",),
    "_codecs": ("encode",),  # protocol 2 has no bytes: they are Latin-1 text to be encoded
    "__builtin__": ("bytes",),  # and this, if empty
}
_BYTE = np.dtype(np.uint8)
_DO_NOT_LOAD = "do not load the file elsewhere either"


def load(path: Path, remedy: str) -> tuple[Any, int]:
    """What the pickle at `path` holds, and the size of the file.

    Dicts (of string and integer keys), lists, tuples, strings, bytes, numbers, booleans and None come as themselves,
    numpy's scalars as Python's numbers, numpy's arrays of numbers as `Array`; a string of more than SHORT bytes, or the name
    of one of numpy's functions, as an object that only `describe` knows.
    Raises BadInputError, in a line that ends in `remedy` (what to do about a file that is not as expected), for a file that
    cannot be read, is no pickle of protocol 2 to 5, is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _Machine(path, file, size, remedy).run(), size
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}): {remedy}") from error


@dataclass(frozen=True, slots=True)
class _Span:
    """A string that stays in the file, from byte `start` to `stop`; `text`: UTF-8, and if bytes are meant, Latin-1 in it."""

    start: int
    stop: int
    text: bool


@dataclass(slots=True, eq=False)
class Array:
    """An array of numbers in a pickle, its shape and dtype checked against the bytes that are there; see `read`."""

    path: Path
    remedy: str
    dtype: np.dtype = _BYTE
    shape: tuple[int, ...] = ()
    fortran: bool = False
    axes: tuple[int, ...] = ()  # numpy 2.4 pickles an array as it lies in memory, and the order of its axes
    values: bytes | _Span | None = None  # None until BUILD

    @property
    def stored(self) -> int:
        """Bytes in the file."""
        if isinstance(self.values, _Span):
            return self.values.stop - self.values.start
        return len(self.values or b"")

    def read(self, owner: str, what: str) -> np.ndarray:
        """The values, from the file if they are long; read-only. BadInputError names `what` of `owner` if they are not there."""
        raw, expected = self.values, math.prod(self.shape) * self.dtype.itemsize
        try:
            if isinstance(raw, _Span):
                with self.path.open("rb") as file:
                    file.seek(raw.start)
                    held = file.read(raw.stop - raw.start)
                raw = held.decode("utf-8").encode("latin-1") if raw.text else held
        except OSError as error:
            raise BadInputError(f"{self.path}: cannot be read ({error.strerror}): leave it in place") from error
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            raise BadInputError(
                f"{self.path}: {owner}: its {what} are damaged ({error.reason}): {self.remedy}"
            ) from error
        if raw is None or len(raw) != expected:
            found = len(raw or b"")
            raise BadInputError(f"{self.path}: {owner} has {found} bytes of {what}, expected {expected}: {self.remedy}")
        flat = np.frombuffer(raw, self.dtype)
        if self.axes:
            lying = [self.shape[self.axes.index(axis)] for axis in range(len(self.axes))]
            return flat.reshape(lying).transpose(self.axes)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def show(value: object) -> str:
    """A string or number of a pickle in an error message, anything else as `describe` does: short, ASCII, one line."""
    if type(value) is str and re.fullmatch(r"[\w.-]{1,60}", value, re.ASCII):
        return value
    return ascii(value)[:60] if type(value) in (str, int, float, bool, type(None)) else describe(value)


def describe(value: object) -> str:
    """The kind of a value of a pickle, which should be another, in an error message."""
    kinds = {
        dict: "a dict",
        list: "a list",
        tuple: "a tuple",
        str: "a string",
        Array: "an array",
        _Span: "a long string",
    }
    if type(value) is _Global:
        return value.name
    return kinds.get(type(value)) or ("None" if value is None else f"{type(value).__name__} {reprlib.repr(value)}")


# ---- the interpreter


@dataclass(slots=True)
class _Dtype:
    """A dtype of numbers, such as "f2"; its byte order comes with BUILD."""

    code: str
    order: str = "="


@dataclass(frozen=True, slots=True)
class _Global:
    """A name of _GLOBALS, which stands for what `_Machine` does, never for an object of numpy."""

    name: str


class _Machine:
    """The stack machine of pickle, without the operations that import, call or set attributes."""

    def __init__(self, path: Path, file: io.BufferedReader, size: int, remedy: str):
        self.path, self.file, self.size, self.remedy = path, file, size, remedy
        self.stack: list[Any] = []  # since the last mark
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        if self.file.read(1) != b"\x80" or self.file.read(1) not in (b"\x02", b"\x03", b"\x04", b"\x05"):
            raise BadInputError(f"{self.path}: not a pickle of protocol 2 to 5: {self.remedy}")
        limit = min(OPERATIONS, FREE_OPERATIONS + self.size // BYTES_PER_OPERATION)
        try:
            for _ in range(limit):
                code = self.file.read(1)
                if code in _VALUES:
                    value = _VALUES[code](self)
                    self.stack.append(value)
                elif code in _EFFECTS:
                    _EFFECTS[code](self)
                elif code == b".":
                    return self.stack.pop()
                else:
                    raise self.unknown(code)
        except BadInputError:  # which is a ValueError
            raise
        except (IndexError, KeyError, TypeError, ValueError) as error:  # operands that are not there
            raise self.fault(f"operation without its operands ({type(error).__name__})") from error
        raise self.fault(f"more than {limit} operations, the limit for {self.size} bytes")

    def fault(self, problem: str, remedy: str | None = None) -> BadInputError:
        return BadInputError(f"{self.path}: near byte {self.file.tell()}: {problem}: {remedy or self.remedy}")

    def unknown(self, code: bytes) -> BadInputError:
        if not code:
            return self.fault("the file ends in the middle of the pickle")
        if code in b"PQ":
            return self.fault("a persistent id, which stands for an object outside the file")
        if code in b"io\x81\x92":
            what = f" ({self.line()}.{self.line()})" if code == b"i" else ""
            return self.fault(f"makes an object of a class{what}, which may run code", _DO_NOT_LOAD)
        if code in b"STUIFVLgp":
            return self.fault("a string or number as Python 2 pickles it", "load the file and save it with Python 3")
        return self.fault(f"operation 0x{code.hex()}, which arrays and plain containers do not need")

    # -- operands in the file

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise self.fault("the file ends in the middle of the pickle")
        return data

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def signed(self, size: int) -> int:
        if size > 9:  # an unsigned 64-bit integer takes 9
            raise self.fault(f"an integer of {size} bytes, the limit is 9")
        return int.from_bytes(self.take(size), "little", signed=True)

    def line(self) -> str:
        """A name, for messages and for the list of permitted ones."""
        return ascii(self.file.readline(SHORT).rstrip(b"\n").decode("latin-1"))[1:-1]

    def string(self, length: int, *, text: bool) -> str | bytes | _Span:
        if length <= SHORT:
            data = self.take(length)
            return data.decode("utf-8") if text else data
        start = self.file.tell()
        if length > self.size - start:
            raise self.fault("the file ends in the middle of the pickle")
        self.file.seek(start + length)
        return _Span(start, start + length, text)

    # -- operands on the stack

    def pop(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise IndexError
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    # -- operations

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def extend(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError
        target.extend(items)

    def update(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):  # no other hash: that of a tuple can take for ever
                raise self.fault(f"a dict with {describe(key)} as key, expected a string or an integer")
            target[key] = value

    def named(self, module: Any, name: Any) -> _Global:
        if type(module) is not str or name not in _GLOBALS.get(module, ()):
            problem = f"names {show(module)}.{show(name)}, which is not part of an array and may run code"
            raise self.fault(problem, _DO_NOT_LOAD)
        return _Global(name)

    def reduce(self, function: Any, arguments: Any) -> Any:
        """The few calls that numpy's pickles make, each done here."""
        if type(function) is not _Global or type(arguments) is not tuple:
            raise self.fault(f"calls {describe(function)}, expected one of numpy's functions")
        array = Array(self.path, self.remedy)
        match function.name, arguments:
            case "dtype", _:
                if type(arguments[0]) is not str or arguments[0] not in _NUMBERS:
                    raise self.fault(f"dtype {show(arguments[0])}, expected one of {', '.join(sorted(_NUMBERS))}")
                return _Dtype(arguments[0])
            case "_reconstruct", (_Global("ndarray"), *_):
                return array
            case "_frombuffer", (values, dtype, shape, order):
                self.fill(array, shape, dtype, order == "F", values)
                return array
            case "_frombuffer", (values, dtype, shape, "K", tuple(axes)):
                self.fill(array, shape, dtype, False, values)
                if not all(type(axis) is int for axis in axes) or sorted(axes) != list(range(len(shape))):
                    raise self.fault("an array whose order of axes is none")
                array.shape, array.axes = tuple(shape[axis] for axis in axes), axes
                return array
            case "scalar", (dtype, bytes(values)):
                self.fill(array, (), dtype, False, values)
                return np.frombuffer(values, array.dtype)[0].item()
            case "bytes", ():
                return b""
            case "encode", (str(text), "latin1" | "latin-1"):
                return text.encode("latin-1")
            case "encode", (_Span() as text, "latin1" | "latin-1"):
                return text
        raise self.fault(f"calls {function.name}, which makes no array as numpy pickles it")

    def build(self, state: Any) -> None:
        target = self.stack[-1]
        if type(state) is not tuple or not state:
            raise TypeError
        match target, state:
            case _Dtype(), (_, "<" | ">" | "|" | "=" as order, None, None, None, _, _, _):
                target.order = order
            case _Dtype(), _:
                raise self.fault("a dtype with fields or metadata, expected numbers")
            case Array(values=None), _:
                _, shape, dtype, fortran, values = state
                self.fill(target, shape, dtype, fortran in (True, 1), values)
            case _:
                raise self.fault(f"sets the state of {describe(target)}, expected an array or a dtype")

    def fill(self, array: Array, shape: Any, dtype: Any, fortran: bool, values: Any) -> None:
        if type(dtype) is not _Dtype or type(values) not in (bytes, _Span) or type(shape) is not tuple:
            raise self.fault("an array that is not made of numbers (of objects, perhaps)")
        if len(shape) > 8 or not all(type(length) is int and 0 <= length <= self.size for length in shape):
            raise self.fault("an array whose shape is not made of up to 8 lengths")
        array.dtype = np.dtype(dtype.order.replace("|", "") + dtype.code)
        array.shape, array.fortran, array.values = shape, fortran, values
        expected, stored = math.prod(shape) * array.dtype.itemsize, array.stored
        # Latin-1 takes one or two bytes of UTF-8; which, is seen when the values are read.
        most = 2 * expected if isinstance(values, _Span) and values.text else expected
        if not expected <= stored <= most:
            raise self.fault(f"an array of shape {shape} with {stored} bytes, expected {expected}")


_VALUES: dict[bytes, Callable[[_Machine], Any]] = {  # operations that push one value
    b"N": lambda m: None,
    b"\x88": lambda m: True,
    b"\x89": lambda m: False,
    b"K": lambda m: m.unsigned(1),  # BININT1
    b"M": lambda m: m.unsigned(2),  # BININT2
    b"J": lambda m: m.signed(4),  # BININT
    b"\x8a": lambda m: m.signed(m.unsigned(1)),  # LONG1
    b"G": lambda m: struct.unpack(">d", m.take(8))[0],  # BINFLOAT
    b"\x8c": lambda m: m.string(m.unsigned(1), text=True),  # SHORT_BINUNICODE
    b"X": lambda m: m.string(m.unsigned(4), text=True),  # BINUNICODE
    b"\x8d": lambda m: m.string(m.unsigned(8), text=True),  # BINUNICODE8
    b"C": lambda m: m.string(m.unsigned(1), text=False),  # SHORT_BINBYTES
    b"B": lambda m: m.string(m.unsigned(4), text=False),  # BINBYTES
    b"\x8e": lambda m: m.string(m.unsigned(8), text=False),  # BINBYTES8
    b"\x96": lambda m: m.string(m.unsigned(8), text=False),  # BYTEARRAY8
    b")": lambda m: (),
    b"\x85": lambda m: m.pop(1),  # TUPLE1 and on
    b"\x86": lambda m: m.pop(2),
    b"\x87": lambda m: m.pop(3),
    b"t": lambda m: tuple(m.since_mark()),
    b"]": lambda m: [],
    b"}": lambda m: {},
    b"h": lambda m: m.memo[m.unsigned(1)],  # BINGET
    b"j": lambda m: m.memo[m.unsigned(4)],  # LONG_BINGET
    b"c": lambda m: m.named(m.line(), m.line()),  # GLOBAL
    b"\x93": lambda m: m.named(*m.pop(2)),  # STACK_GLOBAL
    b"R": lambda m: m.reduce(*m.pop(2)),
}
_EFFECTS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x95": lambda m: m.take(8),  # FRAME: how much to buffer
    b"(": lambda m: m.mark(),
    b"0": lambda m: m.pop(1),
    b"1": lambda m: m.since_mark(),  # POP_MARK
    b"a": lambda m: m.extend(m.pop(1)),
    b"e": lambda m: m.extend(m.since_mark()),  # APPENDS
    b"s": lambda m: m.update(m.pop(2)),
    b"u": lambda m: m.update(m.since_mark()),  # SETITEMS
    b"q": lambda m: m.remember(m.unsigned(1)),  # BINPUT
    b"r": lambda m: m.remember(m.unsigned(4)),  # LONG_BINPUT
    b"\x94": lambda m: m.remember(len(m.memo)),  # MEMOIZE
    b"b": lambda m: m.build(*m.pop(1)),
}
