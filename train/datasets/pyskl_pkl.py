"""Reader of the NTU RGB+D pickles that pyskl distributes, ntu60_3danno.pkl and ntu120_3danno.pkl, as data only.

A file holds a dict: `split`, {"xsub_train": [name, ...], "xsub_val": ...}, where "val" is the benchmark's test part, and
`annotations`, a list of {frame_dir: name, label: int, keypoint: (M, T, 25, 3) float16 or float32, total_frames: int}, in
metres and in the sensor's coordinates. Zero stands for a body that a frame lacks.

A pickle is a program: the usual loader imports and calls whatever it names. A list of permitted names does not tame
that loader: without a single name a small file can have it hash tuples nested so deep that the interpreter
crashes, or ask for a memo of 64 GB. So nothing is unpickled here. `_Machine` interprets the operations that
plain containers, strings, numbers and numpy's arrays of numbers need, and has no way to import, call or set anything.
It is bounded by the size of the file: at most OPERATIONS in all and one per BYTES_PER_OPERATION (after a few), each of which takes
a hundred bytes or two; an array never claims more bytes than lie behind it, and all the clips' arrays together
not more than the file has. Arrays stay in the file until their clip is asked for.

Source: Duan et al., PYSKL (ACM MM 2022), tools/data of its code; the opcodes as in Python's pickletools, protocols 2 to 5;
numpy's ndarray.__reduce__ and __reduce_ex__, dtype.__reduce__.
"""

from __future__ import annotations

import io
import math
import os
import re
import reprlib
import struct
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.train.datasets import ntu
from mksgn.train.datasets.clips import Clip, ClipSet, LazyClips, spread
from mksgn.train.errors import BadInputError
from mksgn.train.skeletons import graph

SOURCE = "pyskl"
SPLITS = ("xsub", "xview", "xsub120", "xset")
PARTS = {"train": "train", "test": "val"}  # the benchmark's name -> the file's
OPERATIONS = 15_000_000  # NTU RGB+D 120 takes a third of them, 45 a clip; about 10 s on one core
BYTES_PER_OPERATION = 8  # of the file, at least, beyond the first FREE_OPERATIONS; the distributed files have hundreds
FREE_OPERATIONS = 100_000
SHORT = (
    256  # bytes: strings up to here are names and keys, and read at once; longer ones are values, and stay in the file
)
WARNING = (
    "warning: a pickle can run code in ordinary loaders (pickle, numpy, torch, pyskl); this reader takes nothing but "
    "arrays of numbers and plain containers out of it, and calls nothing"
)
_REMEDY = "fetch ntu60_3danno.pkl or ntu120_3danno.pkl again"
_NUMBERS = frozenset(kind + size for kind in "iu" for size in "1248") | {"f2", "f4", "f8", "b1"}
_GLOBALS = {
    (module, name): name
    for module, names in {
        "numpy": ("ndarray", "dtype"),
        "numpy.core.multiarray": ("_reconstruct", "scalar"),
        "numpy._core.multiarray": ("_reconstruct", "scalar"),  # numpy 2
        "numpy.core.numeric": ("_frombuffer",),  # protocol 5
        "numpy._core.numeric": ("_frombuffer",),
        "_codecs": ("encode",),  # protocol 2 has no bytes: they are Latin-1 text to be encoded
        "__builtin__": ("bytes",),  # and this, if empty
    }.items()
    for name in names
}


def read(path: str | Path, split: str | None, part: str, limit: int | None = None) -> ClipSet:
    """Clips of `part` ("train" or "test") of `split` (see SPLITS; None: xsub), sorted by name, joints unread.

    A file is of NTU RGB+D 120 if it has a label of 60 or more, a split xset, or a name with "ntu120", and its xsub is the
    project's xsub120. Only the first `total_frames` of a clip count; frames without any body are left out, and so are bodies
    that are zero throughout. As in the other readers of NTU RGB+D, and in pyskl's own pipeline, the middle of the spine of
    body 1, in its first frame, becomes the origin, and a body stays zero where it is absent. `limit` takes some of the
    clips, as `spread` says. `notes` give the published count, tell what was left out, and warn of pickles.

    Raises BadInputError for an unknown split or part, a file that cannot be read, is damaged, or names anything but
    numpy's arrays, annotations that are not 25 joints of 3 coordinates, labels that contradict a clip's name; and, when
    that clip is asked for, for one without a body.
    """
    path = Path(os.path.expanduser(path))
    split = SPLITS[0] if split is None else split
    if split not in SPLITS:
        raise BadInputError(f"{SOURCE} has no split {split!r}: use one of {', '.join(SPLITS)}")
    if part not in PARTS:
        raise BadInputError(f"{SOURCE} has no part {part!r}: use train or test")
    document, size = _load(path)
    annotations, bodiless = _annotations(path, document, size)
    split = _split(path, split, document["split"], annotations)
    names, elsewhere = _names(path, document["split"], split, part)
    found = sorted(names & annotations.keys())
    if not found:
        raise BadInputError(
            f"{path}: none of the {len(names)} clips of the {part} part of split {split} is there: {_REMEDY}"
        )
    parsed = [_check(path, name, annotations[name], split) for name in found]
    labels = np.array([name.label for name in parsed], dtype=np.int64)
    stored = [(annotations[name]["keypoint"], annotations[name]["total_frames"]) for name in found]
    clips = LazyClips(labels, lambda index: _clip(path, found[index], parsed[index], *stored[index]))
    missing, idle = names - annotations.keys(), annotations.keys() - names - elsewhere
    strays = {name for name, numbers in zip(found, parsed, strict=True) if ntu.SPLITS[split].part(numbers) != part}
    noted = {
        f"of the {len(names):,} clips of this part left out, as they have no annotation": missing,
        f"of {len(annotations):,} annotations left out, as they are in no part of split {split}": idle,
        f"clips kept that the benchmark does not have in the {part} part of split {split}": strays,
    }
    notes = [WARNING, ntu.count_note(split, part, len(found))]
    notes += [f"{len(which):,} {what}: {_first(which)}" for what, which in noted.items() if which]
    if bodiless:
        notes.append(f"{bodiless:,} empty annotations left out, recordings without a body")
    return spread(ClipSet(SOURCE, split, part, ntu.GRAPH, ntu.classes(split), clips, tuple(notes)), limit)


def _first(names: Set[str]) -> str:
    return _show(min(names)) + (", ..." if len(names) > 1 else "")


def _annotations(path: Path, document: Any, size: int) -> tuple[dict[str, dict], int]:
    """Annotations by name, each with a label that is an int, and how many were None."""
    entries = document.get("annotations") if type(document) is dict else None
    if type(entries) is not list or not entries or type(document.get("split")) is not dict:
        raise BadInputError(
            f"{path}: holds {_describe(document)}, expected a dict with split and annotations: "
            f"{SOURCE}:PATH must be ntu60_3danno.pkl or ntu120_3danno.pkl"
        )
    named: dict[str, dict] = {}
    total, bodiless = 0, 0
    for index, entry in enumerate(entries):
        if entry is None:  # pyskl's script leaves one for a recording in which no body was seen
            bodiless += 1
            continue
        name = entry.get("frame_dir") if type(entry) is dict else None
        if type(name) is not str:
            raise BadInputError(f"{path}: annotation {index} (from 0) has no frame_dir, the clip's name: {_REMEDY}")
        if type(entry.get("label")) is not int:
            raise BadInputError(
                f"{path}: {_show(name)} has {_describe(entry.get('label'))} as label, expected a number: {_REMEDY}"
            )
        if named.setdefault(name, entry) is not entry or len(named) + bodiless <= index:
            raise BadInputError(f"{path}: two annotations are named {_show(name)}: {_REMEDY}")
        keypoint = entry.get("keypoint")
        total += keypoint.stored if type(keypoint) is _Array else 0
    if total > size:  # arrays shared by clips: a small file that becomes large when read
        raise BadInputError(
            f"{path}: {total} bytes of keypoints in a file of {size}, expected a place for each: {_REMEDY}"
        )
    return named, bodiless


def _split(path: Path, split: str, lists: dict, annotations: dict[str, dict]) -> str:
    """A name of ntu.SPLITS, of as many classes as the file has."""
    large = "ntu120" in path.name.lower() or any(f"xset_{word}" in lists for word in PARTS.values())
    classes = 120 if large or any(entry["label"] >= ntu.ACTIONS_60 for entry in annotations.values()) else 60
    split = "xsub120" if split == "xsub" and classes == 120 else split
    if ntu.SPLITS[split].classes != classes:
        fitting = " or ".join(each for each in SPLITS if ntu.SPLITS[each].classes == classes)
        raise BadInputError(
            f"{path}: NTU RGB+D {classes}, expected {ntu.SPLITS[split].classes} classes for split {split}: use --split {fitting}"
        )
    return split


def _names(path: Path, lists: dict, split: str, part: str) -> tuple[set[str], set[str]]:
    """The names in this part of the split, and those in the other one."""
    found: dict[str, set[str]] = {}
    for each, word in PARTS.items():
        key = f"{split.removesuffix('120')}_{word}"
        names = lists.get(key, [] if each != part else None)
        if type(names) is not list or not all(type(name) is str for name in names):
            held = ascii(", ".join(key for key in lists if type(key) is str)[:200])
            raise BadInputError(
                f"{path}: no list of names {key}, which the {each} part of split {split} needs, found {held}: "
                "use a split that the file has, or fetch the file again"
            )
        found[each] = set(names)
        if len(found[each]) < len(names):
            raise BadInputError(
                f"{path}: {len(names) - len(found[each])} names are twice in {key}, expected 0: {_REMEDY}"
            )
    if both := found["train"] & found["test"]:
        raise BadInputError(
            f"{path}: {len(both)} clips are in both parts of split {split}, {_show(min(both))} first, expected 0: a test "
            f"on clips that were trained on measures nothing, {_REMEDY}"
        )
    (other,) = PARTS.keys() - {part}
    return found[part], found[other]


def _check(path: Path, name: str, entry: dict, split: str) -> ntu.ClipName:
    """The numbers in the clip's name; BadInputError for whatever is wrong but its values."""
    shown, keypoint, frames = _show(name), entry.get("keypoint"), entry.get("total_frames")
    try:
        numbers = ntu.ClipName.parse(name)
    except BadInputError as error:
        raise BadInputError(
            f"{path}: {shown} is not SsssCcccPpppRrrrAaaa with A001 to A120: this reader takes NTU RGB+D only, {_REMEDY}"
        ) from error
    if entry["label"] != numbers.label or numbers.action > ntu.SPLITS[split].classes:
        raise BadInputError(
            f"{path}: {shown} has label {_show(entry['label'])}, expected {numbers.label} ({ntu.CLASSES[numbers.label]}) by its "
            f"name, and below {ntu.SPLITS[split].classes}: {_REMEDY}"
        )
    if type(keypoint) is not _Array or keypoint.dtype.kind != "f":
        held = f"{keypoint.dtype} numbers" if type(keypoint) is _Array else _describe(keypoint)
        raise BadInputError(
            f"{path}: {shown} has {held} as keypoint, expected an array of float16 or float32: {_REMEDY}"
        )
    shape, joints = keypoint.shape, graph(ntu.GRAPH).size
    if len(shape) == 4 and (shape[3] == 2 or "keypoint_score" in entry or shape[2] == 17):
        raise BadInputError(
            f"{path}: {shown} has {shape[2]} joints of {shape[3]} coordinates, poses estimated from video (HRNet), expected "
            f"{joints} of 3: fetch ntu60_3danno.pkl or ntu120_3danno.pkl, the Kinect's joints, instead"
        )
    if len(shape) != 4 or shape[2:] != (joints, 3) or 0 in shape:
        raise BadInputError(
            f"{path}: {shown} has keypoints of shape {shape}, expected (bodies, frames, {joints}, 3), none of them 0: {_REMEDY}"
        )
    if type(frames) is not int or not 1 <= frames <= shape[1]:
        raise BadInputError(
            f"{path}: {shown} has total_frames {_show(frames)}, expected 1 to {shape[1]}, the frames of its keypoints: {_REMEDY}"
        )
    return numbers


def _clip(path: Path, name: str, numbers: ntu.ClipName, array: _Array, frames: int) -> Clip:
    with np.errstate(over="ignore"):  # of float64: infinite, and refused with the other values downstream
        joints = _values(path, name, array)[:, :frames].astype(np.float32)
    present = joints.any(axis=(2, 3))
    if not present.any():
        raise BadInputError(f"{path}: {name} is zero in all its frames, expected a body: take it out of the split")
    bodies, seen = present.any(axis=1), present.any(axis=0)
    joints, present = joints[bodies][:, seen], present[bodies][:, seen]
    joints[present] -= joints[0, present[0].argmax(), graph(ntu.GRAPH).centre]
    return Clip(name, numbers.label, joints, ntu.GRAPH, numbers.subject, numbers.camera)


# ---- values as they stand in the file


@dataclass(frozen=True, slots=True)
class _Span:
    """A string that stays in the file, from byte `start` to `stop`; `text`: UTF-8, and if bytes are meant, Latin-1 in it."""

    start: int
    stop: int
    text: bool


@dataclass(slots=True)
class _Array:
    """An array of numbers, its shape and dtype checked against the bytes that are there; `values` None until BUILD."""

    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.uint8))
    shape: tuple[int, ...] = ()
    fortran: bool = False
    values: bytes | _Span | None = None

    @property
    def stored(self) -> int:
        """Bytes in the file."""
        if isinstance(self.values, _Span):
            return self.values.stop - self.values.start
        return len(self.values or b"")


@dataclass(slots=True)
class _Dtype:
    """A dtype of numbers, such as "f2"; its byte order comes with BUILD."""

    code: str
    order: str = "="


@dataclass(frozen=True, slots=True)
class _Global:
    """A name of _GLOBALS, which stands for what `_Machine` does, never for an object of numpy."""

    name: str


def _values(path: Path, name: str, array: _Array) -> np.ndarray:
    raw, expected = array.values, math.prod(array.shape) * array.dtype.itemsize
    if isinstance(raw, _Span):
        try:
            with path.open("rb") as file:
                file.seek(raw.start)
                held = file.read(raw.stop - raw.start)
            raw = held.decode("utf-8").encode("latin-1") if raw.text else held
        except OSError as error:
            raise BadInputError(f"{path}: cannot be read ({error.strerror}): leave it in place") from error
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            raise BadInputError(
                f"{path}: {_show(name)}: its keypoints are damaged ({error.reason}): {_REMEDY}"
            ) from error
    if raw is None or len(raw) != expected:
        found = len(raw or b"")
        raise BadInputError(f"{path}: {_show(name)} has {found} bytes of keypoints, expected {expected}: {_REMEDY}")
    return np.frombuffer(raw, array.dtype).reshape(array.shape, order="F" if array.fortran else "C")


def _show(value: Any) -> str:
    """Of a string or number in the file, in a line: short, ASCII."""
    text = value if type(value) is str and re.fullmatch(r"[\w.-]{1,60}", value, re.ASCII) else None
    return text or (ascii(value)[:60] if type(value) in (str, int, float, bool, type(None)) else _describe(value))


def _describe(value: Any) -> str:
    """The kind of a value that should be another."""
    kinds = {
        dict: "a dict",
        list: "a list",
        tuple: "a tuple",
        str: "a string",
        _Array: "an array",
        _Span: "a long string",
    }
    if type(value) is _Global:
        return value.name
    return kinds.get(type(value)) or ("None" if value is None else f"{type(value).__name__} {reprlib.repr(value)}")


# ---- the interpreter


def _load(path: Path) -> tuple[Any, int]:
    """What the pickle holds, arrays unread, and the size of the file."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _Machine(path, file, size).run(), size
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read ({error.strerror}): {SOURCE}:PATH must be ntu60_3danno.pkl or ntu120_3danno.pkl"
        ) from error


class _Machine:
    """The stack machine of pickle, without the operations that import, call or set attributes."""

    def __init__(self, path: Path, file: io.BufferedReader, size: int):
        self.path, self.file, self.size = path, file, size
        self.stack: list[Any] = []  # since the last mark
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        if self.file.read(1) != b"\x80" or self.file.read(1) not in (b"\x02", b"\x03", b"\x04", b"\x05"):
            raise BadInputError(
                f"{self.path}: not a pickle of protocol 2 to 5: {SOURCE}:PATH must be ntu60_3danno.pkl or its like"
            )
        try:
            return self.interpret()
        except BadInputError:
            raise
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:  # operands that are not there
            raise self.fault(f"operation without its operands ({type(error).__name__})") from error

    def interpret(self) -> Any:
        read, operations = self.file.read, _OPERATIONS
        limit = min(OPERATIONS, FREE_OPERATIONS + self.size // BYTES_PER_OPERATION)
        for _ in range(limit):
            code = read(1)
            if code == b".":
                return self.stack.pop()
            operation = operations.get(code)
            if operation is None:
                raise self.unknown(code)
            operation(self)
        raise self.fault(f"more than {limit} operations, the limit for {self.size} bytes")

    def fault(self, problem: str, remedy: str = _REMEDY) -> BadInputError:
        return BadInputError(f"{self.path}: near byte {self.file.tell()}: {problem}: {remedy}")

    def unknown(self, code: bytes) -> BadInputError:
        if not code:
            return self.fault("the file ends in the middle of the pickle")
        if code in b"PQ":
            return self.fault("a persistent id, which stands for an object outside the file")
        if code in b"io\x81\x92":
            what = f" ({self.line()}.{self.line()})" if code == b"i" else ""
            return self.fault(
                f"makes an object of a class{what}, which may run code", "do not load the file elsewhere either"
            )
        if code in b"STUIFVLgp":
            return self.fault("a string or number as Python 2 pickles it", "load the file and save it with Python 3")
        return self.fault(f"operation 0x{code.hex()}, which arrays and plain containers do not need")

    # -- operands in the file

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise self.fault("the file ends in the middle of the pickle")
        return data

    def number(self, form: struct.Struct) -> int:
        (value,) = form.unpack(self.take(form.size))
        return value

    def line(self) -> str:
        """A name, for messages and for the list of permitted ones."""
        return ascii(self.file.readline(SHORT).rstrip(b"\n").decode("latin-1"))[1:-1]

    def string(self, length: int, text: bool) -> str | bytes | _Span:
        if length > SHORT:
            start = self.file.tell()
            if length > self.size - start:
                raise self.fault("the file ends in the middle of the pickle")
            self.file.seek(start + length)
            return _Span(start, start + length, text)
        data = self.take(length)
        return data.decode("utf-8") if text else data

    # -- operations

    def push_text(self, form: struct.Struct) -> None:
        self.stack.append(self.string(self.number(form), text=True))

    def push_bytes(self, form: struct.Struct) -> None:
        self.stack.append(self.string(self.number(form), text=False))

    def push_number(self, form: struct.Struct) -> None:
        self.stack.append(self.number(form))

    def long(self) -> None:
        length = self.take(1)[0]
        if length > 9:  # an unsigned 64-bit integer takes 9
            raise self.fault(f"an integer of {length} bytes, the limit is 9")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def close_tuple(self) -> None:
        items = tuple(self.since_mark())
        self.stack.append(items)

    def make_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        items = tuple(self.stack[-count:])
        self.stack[-count:] = [items]

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError
        target.extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):  # no other hash: that of a tuple can take for ever
                raise self.fault(f"a dict with {_describe(key)} as key, expected a string or an integer")
            target[key] = value

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])

    def append(self) -> None:
        value = self.stack.pop()
        self.extend([value])

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, form: struct.Struct) -> None:
        self.stack.append(self.memo[self.number(form)])

    def named(self, module: Any, name: Any) -> None:
        known = _GLOBALS.get((module, name)) if type(module) is str and type(name) is str else None
        if known is None:
            raise self.fault(
                f"names {_show(module)}.{_show(name)}, which is not part of an array and may run code",
                "do not load the file elsewhere either",
            )
        self.stack.append(_Global(known))

    def stack_named(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.named(module, name)

    def reduce(self) -> None:
        """The few calls that numpy's pickles make, each done here."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Global or type(arguments) is not tuple:
            raise self.fault(f"calls {_describe(function)}, expected one of numpy's functions")
        made: Any
        if function.name == "dtype":
            code = arguments[0]
            if type(code) is not str or code not in _NUMBERS:
                raise self.fault(f"dtype {_show(code)}, expected one of {', '.join(sorted(_NUMBERS))}")
            made = _Dtype(code)
        elif function.name == "_reconstruct" and arguments[0] == _Global("ndarray"):
            made = _Array()
        elif function.name == "_frombuffer":
            values, dtype, shape, order = arguments
            made = _Array()
            self.fill(made, shape, dtype, order == "F", values)
        elif function.name == "scalar":
            one = _Array()
            self.fill(one, (), arguments[0], False, arguments[1])
            if not isinstance(one.values, bytes):
                raise TypeError
            made = np.frombuffer(one.values, one.dtype)[0].item()
        elif function.name == "bytes" and not arguments:
            made = b""
        elif function.name == "encode":
            made = self.encoded(*arguments)
        else:
            raise self.fault(f"calls {function.name}, which makes no array as numpy pickles it")
        self.stack.append(made)

    def encoded(self, text: Any, encoding: Any) -> Any:
        if encoding not in ("latin1", "latin-1") or type(text) not in (str, _Span):
            raise TypeError
        return text.encode("latin-1") if type(text) is str else text

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(state) is not tuple:
            raise TypeError
        if type(target) is _Dtype:
            _, order, *rest = state
            if order not in ("<", ">", "|", "=") or any(each is not None for each in rest[:3]) or len(rest) != 6:
                raise self.fault("a dtype with fields or metadata, expected numbers")
            target.order = order
        elif type(target) is _Array and target.values is None:
            _, shape, dtype, fortran, values = state
            self.fill(target, shape, dtype, fortran is True or fortran == 1, values)
        else:
            raise self.fault(f"sets the state of {_describe(target)}, expected an array or a dtype")

    def fill(self, array: _Array, shape: Any, dtype: Any, fortran: bool, values: Any) -> None:
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


_U8, _U16, _U32, _U64, _I32, _F64 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<Q", "<i", ">d"))
_OPERATIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x95": lambda m: m.take(8),  # FRAME: how much to buffer
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"K": lambda m: m.push_number(_U8),  # BININT1
    b"M": lambda m: m.push_number(_U16),  # BININT2
    b"J": lambda m: m.push_number(_I32),  # BININT
    b"G": lambda m: m.push_number(_F64),  # BINFLOAT
    b"\x8a": lambda m: m.long(),  # LONG1
    b"\x8c": lambda m: m.push_text(_U8),  # SHORT_BINUNICODE
    b"X": lambda m: m.push_text(_U32),  # BINUNICODE
    b"\x8d": lambda m: m.push_text(_U64),  # BINUNICODE8
    b"C": lambda m: m.push_bytes(_U8),  # SHORT_BINBYTES
    b"B": lambda m: m.push_bytes(_U32),  # BINBYTES
    b"\x8e": lambda m: m.push_bytes(_U64),  # BINBYTES8
    b"\x96": lambda m: m.push_bytes(_U64),  # BYTEARRAY8
    b"(": lambda m: m.mark(),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.since_mark(),  # POP_MARK
    b")": lambda m: m.stack.append(()),
    b"\x85": lambda m: m.make_tuple(1),
    b"\x86": lambda m: m.make_tuple(2),
    b"\x87": lambda m: m.make_tuple(3),
    b"t": lambda m: m.close_tuple(),
    b"]": lambda m: m.stack.append([]),
    b"a": lambda m: m.append(),
    b"e": lambda m: m.extend(m.since_mark()),  # APPENDS
    b"}": lambda m: m.stack.append({}),
    b"s": lambda m: m.set_item(),
    b"u": lambda m: m.update(m.since_mark()),  # SETITEMS
    b"q": lambda m: m.remember(m.number(_U8)),  # BINPUT
    b"r": lambda m: m.remember(m.number(_U32)),  # LONG_BINPUT
    b"\x94": lambda m: m.remember(len(m.memo)),  # MEMOIZE
    b"h": lambda m: m.recall(_U8),  # BINGET
    b"j": lambda m: m.recall(_U32),  # LONG_BINGET
    b"c": lambda m: m.named(m.line(), m.line()),  # GLOBAL
    b"\x93": lambda m: m.stack_named(),  # STACK_GLOBAL
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
}
