"""Damaged forms of a valid file: bytes that flip, members of an archive that lie, values of another type or size.

Strategies of hypothesis, for the tests of a reader and for long runs over it.
"""

import copy
import io
import pickletools
import struct
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.support.tiers import examples

FOREIGN: Sequence[tuple[str, bytes]] = (
    ("readme.txt", b"not an array"),
    ("../outside.npy", b""),
    ("x.npy", b"\x93NUMPY\x01"),
    ("\N{ESC}[2J.npy", b""),
)
HEADERS: Sequence[dict[str, Any]] = (
    {"descr": "<f4", "fortran_order": False, "shape": (10**12,)},
    {"descr": "|V0", "fortran_order": False, "shape": (10**12,)},
    {"descr": "<f4", "fortran_order": False, "shape": (0, 2**62, 2**62)},
    {"descr": "|O", "fortran_order": False, "shape": (1,)},
    {"descr": [("a", "<f4")], "fortran_order": False, "shape": (1,)},
    {"descr": ("<f4", (10**9,)), "fortran_order": False, "shape": (1,)},
    {"descr": "<f4", "fortran_order": True, "shape": (-1,)},
    {"descr": "<U1000000000", "fortran_order": False, "shape": (1,)},
    {"descr": "<c8", "fortran_order": False, "shape": (1,)},
)


def damage_settings(in_full: int, fast: int = 15) -> settings:
    """Settings of a property of a reader: files are not made smaller where it fails, which would take minutes."""
    return settings(
        max_examples=examples(in_full, fast),
        deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def flipped(content: bytes, most: int = 6) -> st.SearchStrategy[bytes]:
    """Bytes of other values, cut off, taken out, or twice."""

    def edited(edits: list[tuple[str, int, int]]) -> bytes:
        damaged = bytearray(content)
        for kind, place, value in edits:
            at = place % max(1, len(damaged))
            if kind == "flip" and damaged:
                damaged[at] ^= 1 << value % 8
            elif kind == "set" and damaged:
                damaged[at] = value
            elif kind == "cut":
                del damaged[at:]
            elif kind == "take out":
                del damaged[at : at + value]
            else:
                damaged[at:at] = damaged[at : at + value]
        return bytes(damaged)

    kinds = st.sampled_from(["flip", "flip", "set", "set", "cut", "take out", "twice"])
    places = st.integers(0, len(content)) | st.integers(max(0, len(content) - 200), len(content))
    return st.lists(st.tuples(kinds, places, st.integers(0, 255)), min_size=1, max_size=most).map(edited)


def values() -> st.SearchStrategy[Any]:
    """What may stand where a file has something else: any plain type, size and depth."""
    extremes = st.sampled_from(
        [None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 10**12, 0.0, -0.5, 1e308, float("inf"), float("nan"), "", "x",
         "NaN", "\N{ESC}[2J", "line\nline", "9" * 5000, [], {}, [0], {"x": 0}, [[]] * 3, "mksgn.progress/9"]
    )  # fmt: skip
    return extremes | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5) | st.builds(_nested)


def _nested() -> Any:
    deep: Any = []
    for _ in range(40):
        deep = [deep]
    return deep


@st.composite
def edited(draw: st.DrawFn, original: Any, others: st.SearchStrategy[Any] | None = None) -> Any:
    """A copy of nested lists and dictionaries in which up to three values are replaced, taken out or added."""
    changed = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        containers = list(_containers(changed))
        if not containers:
            return draw(values())
        container = draw(st.sampled_from(containers))
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        kind = draw(st.sampled_from(["replace", "replace", "take out", "add"]))
        if kind == "add" or not keys:
            new = draw(values() if others is None else values() | others)
            if isinstance(container, dict):
                container[draw(st.text(max_size=5))] = new
            else:
                container.append(new)
            continue
        key = draw(st.sampled_from(keys))
        if kind == "take out":
            del container[key]
        else:
            container[key] = draw(values() if others is None else values() | others)
    return changed


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


@st.composite
def rezipped(draw: st.DrawFn, content: bytes) -> bytes:
    """An archive with members taken out, twice, renamed, compressed, foreign or of other bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(members) - 1)) if members else 0
        kind = draw(st.sampled_from(["take out", "twice", "rename", "foreign", "bytes", "header", "bomb"]))
        if kind == "foreign" or not members:
            members.append(draw(st.sampled_from(FOREIGN)))
            continue
        name, inside = members[at]
        match kind:
            case "take out":
                del members[at]
            case "twice":
                members.append((name, inside))
            case "rename":
                members[at] = (draw(st.text(max_size=6)) + name[draw(st.integers(0, len(name))) :] or "x", inside)
            case "bytes":
                members[at] = (name, draw(flipped(inside)) if inside else b"x")
            case "header":
                members[at] = (name, npy(draw(st.sampled_from(HEADERS))) + inside[-8:])
            case "bomb":
                members[at] = (name, inside + bytes(1 << 20))
    return zipped(members, draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])))


def zipped(members: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members, names twice where they are so."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, inside in members:
            info = zipfile.ZipInfo(name or "x")
            info.compress_type = compression
            archive.NameToInfo.pop(info.filename, None)  # else a warning
            archive.writestr(info, inside)
    return buffer.getvalue()


def npy(header: dict[str, Any]) -> bytes:
    """The header of a .npy that says this."""
    text = repr(header).encode("latin-1").ljust(117) + b"\n"
    return np.lib.format.MAGIC_PREFIX + b"\x01\x00" + struct.pack("<H", len(text)) + text


def bomb(size: int, *, name: str = "x.npy", block: int = 1 << 24) -> bytes:
    """An .npz with an array of `size` zeros of one byte, a thousandth as large, made without holding it."""
    buffer, member = io.BytesIO(), zipfile.ZipInfo(name)
    member.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer, "w") as archive, archive.open(member, "w", force_zip64=True) as stream:
        stream.write(npy({"descr": "|u1", "fortran_order": False, "shape": (size,)}))
        for start in range(0, size, block):
            stream.write(bytes(min(block, size - start)))
    return buffer.getvalue()


@st.composite
def edited_pickle(draw: st.DrawFn, content: bytes) -> bytes:
    """A pickle whose operations are taken out, twice, exchanged, or joined by others."""
    places = [position for _, _, position in pickletools.genops(content)] + [len(content)]
    operations = [content[start:end] for start, end in zip(places, places[1:], strict=False)]
    others = [b"N", b")", b"}", b"]", b"(", b"t", b"\x85", b"\x86", b"0", b"2", b"R", b"b", b"s", b"u", b"e", b"a", b"Q",
              b"h\x00", b"q\x00", b"\x8f", b"K\x07", b"cos\nsystem\n", b"\x8a\xff" + b"\xff" * 255, b"G" + b"\x7f" * 8]  # fmt: skip
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(operations) - 1))
        match draw(st.sampled_from(["take out", "twice", "exchange", "insert", "replace"])):
            case "take out" if len(operations) > 1:
                del operations[at]
            case "twice":
                operations.insert(at, operations[at])
            case "exchange":
                other = draw(st.integers(0, len(operations) - 1))
                operations[at], operations[other] = operations[other], operations[at]
            case "insert":
                operations.insert(at, draw(st.sampled_from(others)))
            case _:
                operations[at] = draw(st.sampled_from(others))
    return b"".join(operations)
