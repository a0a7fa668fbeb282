"""Reads pickles of plain containers and numpy arrays of numbers, and calls nothing that a file
names.

A pickle names functions and has the loader call them. The standard library's unpickler reads the
file here, but its `find_class` knows only the names in numpy's pickles of arrays, and resolves them
to the stand-ins below. They accept numbers only. numpy's own `dtype` and `ndarray` would not be
safe: their `__setstate__` trusts the file, and a forged flag of a dtype makes numpy take bytes for
pointers.

The unpickler is the one written in Python, since its memo is a dict. The memo of the C one is an
array as long as the largest index in the file, so one damaged byte could allocate gigabytes.

Dictionary keys have to be plain and sets are refused, because hashing nested tuples has no bound in depth, nor in
time if each tuple holds the one below it twice. The number of containers is bounded.

Source: numpy's ndarray.__reduce__ and __reduce_ex__, dtype.__reduce__.
"""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.common.contents import check_pointer
from mksgn.common.errors import BadInputError, first_line
from mksgn.common.quoting import quoted
from mksgn.common.reading import open_file

MAX_BYTES = 16 << 30  # ntu120_3danno.pkl, the largest that pyskl distributes, has 2 to 4 GB
MAX_CONTAINERS = 5_000_000  # that file has a tenth; an empty container takes a byte in the file and 70 in memory
_KEYS = (str, int, float, bool, bytes, type(None))
_HASHING = b"\x8f\x90\x91"  # EMPTY_SET, ADDITEMS, FROZENSET
_NUMBERS = frozenset(kind + size for kind in "iu" for size in "1248") | {"f2", "f4", "f8", "b1"}
_NAMES = {
    "numpy": ("ndarray", "dtype"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),  # numpy 2
    "numpy.core.numeric": ("_frombuffer",),  # protocol 5
    "numpy._core.numeric": ("_frombuffer",),
    "_codecs": ("encode",),  # protocol 2 stores bytes as Latin-1 text
    "__builtin__": ("bytes",),  # and empty ones as a call
}


def load(path: Path, remedy: str) -> tuple[Any, int]:
    """Read a pickle into memory.

    Args:
        path: The file.
        remedy: What to do about a file that is refused; ends each error message.

    Returns:
        The value, with numpy's scalars as Python numbers and numpy's arrays as `Array`, and the
        file's size in bytes.

    Raises:
        BadInputError: In one line, for a file that cannot be read, is too large or damaged, or
            names anything but arrays of numbers.
    """
    try:
        with open_file(path, MAX_BYTES, remedy) as file:
            check_pointer(path)
            size = os.fstat(file.fileno()).st_size
            return _Unpickler(file).load(), size
    except BadInputError:
        raise
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}): {remedy}") from error
    except Exception as error:  # damage makes the unpickler raise almost any error
        raise BadInputError(
            f"{path}: not a pickle of plain containers and arrays of numbers ({first_line(error)}): {remedy}"
        ) from error


class Array:
    """An array of numbers in a pickle; `values` is read-only where the pickle holds bytes."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray | None = None):
        self.values = np.empty(0, np.uint8) if values is None else values

    def __setstate__(self, state: Any) -> None:
        match state:
            case (_, tuple() as shape, _Dtype(value=dtype), fortran, bytes() as data):
                self.values = _array(data, dtype, shape, "F" if fortran else "C")
            case _:
                raise pickle.UnpicklingError("an array of anything but numbers (of objects, perhaps)")


def show(value: object) -> str:
    """Format a string or number of a pickle for an error message (short, ASCII, one line), anything
    else as `describe` does."""
    if type(value) is str and re.fullmatch(r"[\w.-]{1,60}", value, re.ASCII):
        return value
    if type(value) is str:
        return ascii(value[:60])[:60]
    return quoted(value, 60) if type(value) in (int, float, bool, type(None)) else describe(value)


def describe(value: object) -> str:
    """Name the kind of an unexpected value of a pickle for an error message."""
    kinds = {dict: "a dict", list: "a list", tuple: "a tuple", str: "a string", Array: "an array", _Name: "a name"}
    return kinds.get(type(value)) or ("None" if value is None else f"{type(value).__name__} {quoted(value)}")


class _Dtype:
    """A dtype of numbers; the pickle sets its byte order after it is made."""

    __slots__ = ("value",)

    def __init__(self, code: str):
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        match state:
            case (_, "<" | ">" | "|" | "=" as order, None, None, None, _, _, _):
                self.value = np.dtype(order.strip("|") + self.value.str[1:])
            case _:
                raise pickle.UnpicklingError("a dtype with fields or metadata, expected numbers")


class _Name:
    """A name in a pickle. The pickle can call it, but cannot set its attributes."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"sets the state of {self.name}")

    def __call__(self, *arguments: Any) -> Any:
        match self.name, arguments:
            case "dtype", (str(code), *_) if code in _NUMBERS:
                return _Dtype(code)
            case "_reconstruct", (_Name(name="ndarray"), *_):
                return Array()
            case "_frombuffer", (bytes() | bytearray() as data, _Dtype(value=dtype), tuple() as shape, order, *axes):
                return Array(_array(data, dtype, shape, order, *axes))
            case "scalar", (_Dtype(value=dtype), bytes(data)):
                return _array(data, dtype, (), "C").item()
            case "encode", (str(text), "latin1" | "latin-1"):
                return text.encode("latin-1")
            case "bytes", ():
                return b""
        raise pickle.UnpicklingError(f"calls {self.name} with {quoted(arguments)}, which makes no array of numbers")


def _setitem(unpickler: Any) -> None:
    _check_keys(unpickler.stack[-2:-1])
    unpickler.load_setitem()


def _setitems(unpickler: Any) -> None:
    _check_keys(unpickler.stack[::2])  # the stack since the mark
    unpickler.load_setitems()


def _dict(unpickler: Any) -> None:
    _check_keys(unpickler.stack[::2])
    unpickler.load_dict()


def _check_keys(keys: list[Any]) -> None:
    for key in keys:
        if type(key) not in _KEYS:
            raise pickle.UnpicklingError(f"{describe(key)} as a key, expected text or a number")


def _no_set(unpickler: Any) -> None:
    raise pickle.UnpicklingError("a set, expected lists and dictionaries")


def _counted(operation: Callable[[Any], None]) -> Callable[[Any], None]:
    def made(unpickler: Any) -> None:
        unpickler.containers += 1
        if unpickler.containers > MAX_CONTAINERS:
            raise pickle.UnpicklingError(f"more than {MAX_CONTAINERS:,} lists, dictionaries and tuples")
        operation(unpickler)

    return made


_LOADERS: dict[int, Callable] = pickle._Unpickler.dispatch
_CHECKED = {
    **{code: _counted(_LOADERS[code]) for code in b"]}(\x85\x86\x87"},  # lists, dictionaries, marks, tuples
    pickle.SETITEM[0]: _setitem,
    pickle.SETITEMS[0]: _setitems,
    pickle.DICT[0]: _dict,
    **dict.fromkeys(_HASHING, _no_set),
}


class _Unpickler(pickle._Unpickler):
    """An unpickler that knows the names in `_NAMES` only; persistent ids and buffers outside the file
    are refused by default."""

    dispatch = _LOADERS | _CHECKED
    containers = 0

    def find_class(self, module: str, name: str) -> _Name:
        if name not in _NAMES.get(module, ()):
            raise pickle.UnpicklingError(
                f"names {show(module)}.{show(name)}, which may run code: do not load the file elsewhere either"
            )
        return _Name(name)

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"names extension {code}, which may run code")


def _array(data: bytes | bytearray, dtype: np.dtype, shape: tuple, order: Any, axes: tuple | None = None) -> np.ndarray:
    """Make an array of `shape`; with `axes` (numpy 2.4), C order in memory and then this
    permutation."""
    values = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    return values.reshape(shape, order=order) if axes is None else values.reshape(shape).transpose(axes)
